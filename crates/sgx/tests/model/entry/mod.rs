//! EENTER, ERESUME, EEXIT and EDECCSSA.

mod eenter;
