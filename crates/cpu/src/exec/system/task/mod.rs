//! Hardware task switches (SDM Vol. 3A, chapter 7). IA-32e mode has none.

pub(crate) mod busy;
pub(crate) mod load;
pub(crate) mod state;
pub(crate) mod switch;
pub(crate) mod target;
