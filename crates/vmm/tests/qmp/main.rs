//! The monitor and the control of a machine, with small guests that run on real processors.

mod client;
mod conversation;
mod devices;
mod epc;
mod guests;
#[path = "../fixture/kernel.rs"]
mod kernel;
mod kvm;
mod machine;
mod policy;
mod power;
mod process;
mod registers;
mod resets;
mod robustness;
mod run_state;
mod sgx;
mod shared_platform;
mod statistics;
#[path = "../fixture/virtio.rs"]
mod virtio;
