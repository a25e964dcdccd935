//! EREPORT and EGETKEY.

mod derivation;
mod egetkey;
mod ereport;
mod kss;

pub(crate) use derivation::cmac;
