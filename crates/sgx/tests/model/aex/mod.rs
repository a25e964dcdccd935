//! Asynchronous exits.

mod causes;
mod exits;
mod state;
