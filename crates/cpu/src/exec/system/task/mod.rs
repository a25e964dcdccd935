//! Hardware task switches (SDM Vol. 3A, chapter 7). IA-32e mode has none.

pub mod busy;
pub mod load;
pub mod state;
pub mod switch;
pub mod target;
