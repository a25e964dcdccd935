//! The bodies of the fuzz targets. They live beside the tests of the SGX model, whose processor
//! and enclaves they use and which run them with a fixed seed; this crate gives them to libFuzzer.

#[path = "../../crates/sgx/tests/model/choices.rs"]
mod choices;
#[path = "../../crates/sgx/tests/model/enclave.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod enclave;
#[path = "../../crates/sgx/tests/model/fuzz/mod.rs"]
mod fuzz;
#[path = "../../crates/sgx/tests/model/machine.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod machine;
#[path = "../../crates/sgx/tests/model/sequences/mod.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod sequences;
#[path = "../../crates/sgx/tests/model/signer.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod signer;

/// Any leaf with any operands, several processors and many leaves in a row.
pub fn leaf_operands(data: &[u8]) {
    fuzz::leaf_operands(data);
}

/// EINIT with any SIGSTRUCT.
pub fn sigstruct(data: &[u8]) {
    fuzz::sigstruct(data);
}

/// EINIT with any EINITTOKEN.
pub fn einittoken(data: &[u8]) {
    fuzz::einittoken(data);
}

/// EGETKEY with any KEYREQUEST.
pub fn keyrequest(data: &[u8]) {
    fuzz::keyrequest(data);
}
