//! ENCLS, ENCLU, ENCLV and enclave mode (SDM Vol. 3D, chapters 34 to 40), on the model of
//! [`cloister_sgx`].

pub mod encls;
pub mod enclu;
pub mod enclv;
pub mod port;
pub mod restrict;

pub use restrict::restricted;

#[cfg(test)]
mod tests;

use iced_x86::{Instruction, Mnemonic};

use crate::op::Handler;

/// The handler of an SGX instruction.
pub fn select(instruction: &Instruction) -> Option<Handler> {
    match instruction.mnemonic() {
        Mnemonic::Encls => Some(encls::encls),
        Mnemonic::Enclu => Some(enclu::enclu),
        Mnemonic::Enclv => Some(enclv::enclv),
        _ => None,
    }
}
