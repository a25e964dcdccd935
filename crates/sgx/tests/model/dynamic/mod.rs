//! The leaves of SGX2.

mod leaves;
