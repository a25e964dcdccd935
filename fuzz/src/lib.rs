//! The bodies of the fuzz targets. They live beside the tests of the SGX model, whose processor
//! and enclaves they use, and beside those of attestation, of VMX, of the translator and of the machine
//! monitor; all run them with a fixed seed.
//! This crate gives them to libFuzzer.

#[path = "../../crates/attest/tests/fuzz/targets.rs"]
mod attest;
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
#[path = "../../crates/sgx/tests/model/meanwhile.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod meanwhile;
#[path = "../../crates/sgx/tests/model/sequences/mod.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod sequences;
#[path = "../../crates/sgx/tests/model/signer.rs"]
#[expect(dead_code, reason = "the model's tests use more of it")]
mod signer;
#[path = "../../crates/jit/tests/fuzz/translator.rs"]
mod translator;
#[path = "../../crates/jit/tests/diff/blocks/undefined.rs"]
mod undefined;
#[path = "../../crates/vmm/tests/fuzz/targets/mod.rs"]
mod vmm;

pub use cloister_cpu::testing::vmcs;
pub use cloister_vmm::qmp::fuzzing::qmp;

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

/// A disk with a boot loader, changed or not a disk at all.
pub fn disk(data: &[u8]) {
    vmm::disk(data);
}

/// GRUB's configuration and the files that it reads.
pub fn grub(data: &[u8]) {
    vmm::grub(data);
}

/// Boot entries and `loader.conf`.
pub fn boot_entries(data: &[u8]) {
    vmm::boot_entries(data);
}

/// A bzImage, an ELF kernel with a PVH entry, or anything.
pub fn kernel(data: &[u8]) {
    vmm::kernel(data);
}

/// The driver of a disk, a console or an entropy device.
pub fn virtio(data: &[u8]) {
    vmm::virtio(data);
}

/// A qcow2 image, changed, and the guest that has it as its disk.
pub fn qcow2(data: &[u8]) {
    vmm::qcow2(data);
}

/// A VMDK image, changed, and the guest that has it as its disk.
pub fn vmdk(data: &[u8]) {
    vmm::vmdk(data);
}

/// Code of any mode, translated and interpreted.
pub fn translator(data: &[u8]) {
    translator::translator(data);
}

/// A REPORT that is to be quoted.
pub fn report(data: &[u8]) {
    attest::report(data);
}

/// A quote that is to be judged.
pub fn quote(data: &[u8]) {
    attest::quote(data);
}

/// A message to the AESM service.
pub fn aesm(data: &[u8]) {
    attest::aesm(data);
}

/// A target of a request to the PCCS.
pub fn pccs(data: &[u8]) {
    attest::pccs(data);
}

/// A root, CRLs or certificates.
pub fn certificates(data: &[u8]) {
    attest::certificates(data);
}

/// A line of QEMU's options.
pub fn qemu_line(data: &[u8]) {
    vmm::qemu_line(data);
}
