//! The leaves of SGX2.

mod eaccept;
mod eacceptcopy;
mod eaug;
mod emodpe;
mod emodpr;
mod emodt;
mod kernel;
mod leaves;
mod secinfo;
mod sgx1;
