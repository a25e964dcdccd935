//! The bodies of the fuzz targets in `fuzz/`, each a function of the fuzzer's bytes that panics
//! when something is wrong. The ordinary tests run them with bytes from a fixed seed.

mod einittoken;
mod keyrequest;
mod leaf_operands;
mod sigstruct;
#[cfg(test)]
mod smoke;

pub(crate) use einittoken::einittoken;
pub(crate) use keyrequest::keyrequest;
pub(crate) use leaf_operands::leaf_operands;
pub(crate) use sigstruct::sigstruct;
