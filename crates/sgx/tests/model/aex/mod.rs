//! Asynchronous exits.

mod exits;
