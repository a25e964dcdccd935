//! A drop-in for Intel's `libsgx_dcap_quoteverify.so.1`, for programs that link it dynamically, such as Gramine's
//! RA-TLS: Intel's has its root compiled in, and this one trusts the root of a folder.
//!
//! [`FOLDER`] names a folder that `cloister pki` wrote. What a quote is worth is said in the forms of Intel's
//! sgx_dcap_quoteverify.h (SGXDataCenterAttestationPrimitives), whose functions are those of [`api`].

pub mod api;
mod judge;
mod supplemental;

/// The environment variable that names the folder with `root-ca.pem` and the collateral.
const FOLDER: &str = "CLOISTER_PKI";
