//! The SGX model, exercised through its public interface by a processor that is nothing but page
//! tables and memory. The oracles are `sgxs` (measurements and SIGSTRUCTs), `rsa` (signatures)
//! and `sgx-isa` (layouts).

mod access;
mod aex;
mod boots;
mod build;
mod choices;
mod conditions;
mod dynamic;
mod enclave;
mod entry;
mod fuzz;
mod inspect;
mod keys;
mod launch;
mod layouts;
mod machine;
mod meanwhile;
mod order;
mod paging;
mod scenario;
mod sequences;
mod signer;
mod storage;
mod threads;
mod unfit;
