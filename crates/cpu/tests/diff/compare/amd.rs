//! What AMD processors are known to do differently from Intel's.

use iced_x86::{CpuidFeature, Instruction, Mnemonic, OpKind};

use super::super::case::{Case, RETIRED};
use super::{ARITHMETIC, is_x87};

/// Whether the outcomes of a case cannot be compared.
pub(super) fn is_known_difference(
    instruction: &Instruction,
    before: &Case,
    native: &Case,
    soft: &Case,
) -> bool {
    let (n, s) = (native.fault.vector, soft.fault.vector);
    let faults = |vector| matches!(vector, 12..=14);
    // The memory operand of a SHA instruction may lie at any address; Intel processors want it
    // aligned (SDM Vol. 2A, table 2-21).
    if instruction.code().cpuid_features().contains(&CpuidFeature::SHA) {
        return s == 13 && n != 13;
    }
    match instruction.mnemonic() {
        // What is loaded by the time that MXCSR is refused is not specified.
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => n == 13 && s == 13,
        // The target is checked before the return address is pushed, as the manual has it
        // (SDM Vol. 2A, CALL).
        Mnemonic::Call => n == 13 && faults(s),
        // A denormal that is scaled by zero underflows where underflow is unmasked.
        Mnemonic::Fscale => {
            let power = &before.state.fx.st[1];
            before.state.fx.control & 0x10 == 0 && power[..8] == [0; 8]
        }
        // Nothing is checked where the count is zero.
        _ if instruction.is_string_instruction() && uses_port(instruction) => {
            n == RETIRED && s == 13 && before.state.gpr[1] == 0
        }
        // The ten bytes are one store: nothing of it is done where its end faults.
        Mnemonic::Fstp | Mnemonic::Fbstp if n == s && faults(n) => true,
        // What a gather leaves behind when it faults, beyond the elements that it has.
        _ if instruction.is_vsib() => n == 14 && s == 14,
        // A store that an unmasked numeric exception prevents faults where its address is bad.
        _ if is_x87(instruction.code()) => {
            let error_summary = soft.state.fx.status & 0x80 != 0;
            instruction.op0_kind() == OpKind::Memory && faults(n) && s == RETIRED && error_summary
        }
        _ => false,
    }
}

fn uses_port(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd)
}

/// Arithmetic flags that a faulting instruction leaves different: a repeated comparison leaves
/// those of its last iteration, where Intel processors put the flags back (SDM Vol. 2B, REP).
pub(super) fn flags_of_fault(instruction: &Instruction) -> u64 {
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if repeated && instruction.is_string_instruction() { ARITHMETIC } else { 0 }
}

/// Whether two vectors mean the same outcome.
pub(super) fn is_same_fault(instruction: &Instruction, native: u64, soft: u64) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        // Which of two faulting operands is reached first is not architectural.
        M::Cmpsb | M::Cmpsw | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq | M::Cmpsd => {
            instruction.is_string_instruction() && native != RETIRED && soft != RETIRED
        }
        // Bytes that the mask leaves out can fault (SDM Vol. 2B, MASKMOVDQU).
        M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu => {
            native == 14 && matches!(soft, 14 | RETIRED)
        }
        // Which byte CR2 names.
        M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => native == 14 && soft == 14,
        _ => has_image(instruction) && native == 14 && soft == 14,
    }
}

/// Whether the change to MMX operation comes at another time: Intel processors begin it before the
/// fault of a store.
pub(super) fn is_x87_state_different(instruction: &Instruction, native: &Case) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Maskmovq | M::Movd | M::Movq | M::Movntq => matches!(native.fault.vector, 12..=14),
        _ => false,
    }
}

/// Bits of the x87 status word that differ.
pub(super) fn status_differences(instruction: &Instruction, before: &Case) -> u16 {
    use Mnemonic as M;
    let st0 = &before.state.fx.st[0];
    let smallest_normal =
        st0[..8] == (1u64 << 63).to_le_bytes() && matches!(st0[8..10], [1, 0 | 0x80]);
    match instruction.mnemonic() {
        // The sine of the smallest normal number is tiny where it is rounded towards zero.
        M::Fsin | M::Fsincos if smallest_normal => 0x10,
        _ => 0,
    }
}

/// Whether an instruction saves or restores an image of x87 or SSE state. AMD processors keep the
/// last-instruction pointers only where an unmasked exception is pending (AMD64 Architecture
/// Programmer's Manual Vol. 5, FXSAVE), MXCSR_MASK has a bit for misaligned operands, and no
/// manual says which byte of an image is looked at first.
pub(super) fn has_image(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
            | M::Fnstenv
            | M::Fldenv
            | M::Fnsave
            | M::Frstor
            | M::Xsave
            | M::Xsave64
            | M::Xsavec
            | M::Xsavec64
            | M::Xsaveopt
            | M::Xsaveopt64
            | M::Xrstor
            | M::Xrstor64
    )
}
