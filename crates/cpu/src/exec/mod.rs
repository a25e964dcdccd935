//! What instructions do: a folder for each group, a file for each family in the manual's order.
//!
//! A family declares the rows of its instructions beside the handlers: which handler executes an
//! instruction, whether it ends a block, whether it is illegal in an enclave. [`select`] finds them
//! in one table by mnemonic. Where two families share a mnemonic (MOV, POP, JMP, CALL, MOVSD,
//! CMPSD), one has the row, and calls the other for its forms.

pub(crate) mod announced;
pub(crate) mod general;
pub(crate) mod operand;
pub(crate) mod sgx;
pub(crate) mod system;
mod table;
pub(crate) mod vector;
mod vmx;
pub(crate) mod x87;

use cloister_x86::Exception;

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::op::Op;

pub use table::under_mxcsr;
pub(crate) use table::{Flow, Lowered, select};

/// More bytes than an instruction may have: #GP(0) (SDM Vol. 3A, 6.15, "Interrupt 13").
///
/// # Errors
///
/// Always #GP(0).
pub(crate) extern "C" fn too_long(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.gp(0))
}

/// Bytes that are not an instruction: #UD.
///
/// # Errors
///
/// Always #UD.
pub(crate) extern "C" fn invalid(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.raise(Exception::ud()))
}
