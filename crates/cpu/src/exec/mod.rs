//! What instructions do: a folder for each group, a file for each family in the manual's order.

pub mod announced;
pub mod general;
pub mod operand;
pub mod sgx;
pub mod system;
pub mod vector;
pub mod x87;

use cloister_x86::Exception;
use iced_x86::{FlowControl, Instruction, Mnemonic};

use crate::controls::Features;
use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mode::Mode;
use crate::op::{Handler, Op};

/// The handler of a decoded instruction; `None` for one that a processor with these features does
/// not have. `op` is lowered already; a family may keep more with it.
pub fn select(
    instruction: &Instruction,
    mode: Mode,
    features: &Features,
    op: &mut Op,
) -> Option<Handler> {
    // Families look at mnemonics, which encodings of other extensions share.
    if !features.has_encoding(instruction, mode) {
        return None;
    }
    if mode.is_enclave()
        && let Some(handler) = sgx::restricted(instruction)
    {
        return Some(handler);
    }
    general::select(instruction, mode, op)
        .or_else(|| system::select(instruction, mode, op))
        .or_else(|| x87::select(instruction, mode, op))
        .or_else(|| vector::select(instruction, mode, op))
        .or_else(|| sgx::select(instruction))
}

/// Whether the instruction's handler writes `rip` itself (or never retires). A conditional branch
/// does so only when it is taken, and then says [`Stop::Jump`](crate::Stop::Jump).
#[must_use]
pub fn writes_rip(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::Interrupt
            | FlowControl::XbeginXabortXend
            | FlowControl::Exception
    ) || matches!(instruction.mnemonic(), Mnemonic::Enclu | Mnemonic::Hlt)
}

/// Whether what follows the instruction may mean something else after it (mode, translations,
/// code), or an event has to be looked at behind it.
#[must_use]
pub fn ends_block(instruction: &Instruction) -> bool {
    system::ends_block(instruction)
}

/// More bytes than an instruction may have: #GP(0) (SDM Vol. 3A, 6.15, "Interrupt 13").
///
/// # Errors
///
/// Always #GP(0).
pub fn too_long(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.gp(0))
}

/// Bytes that are no instruction: #UD.
///
/// # Errors
///
/// Always #UD.
pub fn invalid(cpu: &mut Cpu, _op: &Op) -> Exec {
    Err(cpu.raise(Exception::ud()))
}
