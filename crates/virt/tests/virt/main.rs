//! SGX virtualization, exercised as a VMM uses it. Guests are RAM, page tables and a processor
//! that stops at ENCLS; enclaves are measured and signed by `sgxs` and `rsa`.

mod census;
mod conservation;
mod cpuid;
mod dispatch;
mod ecreate;
mod einit;
mod enclave;
mod guest;
mod host;
mod kernel;
mod life;
mod many;
mod msr;
mod pool;
mod provision;
mod race;
mod release;
mod signer;
mod store;
mod vm;
