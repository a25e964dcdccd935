//! EENTER, ERESUME, EEXIT and EDECCSSA.

mod edeccssa;
mod eenter;
mod eexit;
mod entering;
mod narrow;
mod resuming;
mod stepping;
mod thread;
