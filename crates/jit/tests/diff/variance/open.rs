//! What the manuals leave open, or to the operating system, of general and system instructions.

use iced_x86::{Mnemonic as M, OpKind, Register, RflagsBits};

use super::super::address::{address_mask, stack_top};
use super::super::case::DATA;
use super::row::{Hosts, Part, Row, Trial};

/// Flags that the manual calls undefined.
pub(crate) const FLAGS: Row = Row {
    name: "flags",
    instructions: "shifts, rotates, BSF, BSR, MUL, DIV, AAA and others",
    differs: "arithmetic flags that the instruction leaves undefined, for shifts by count and width",
    why: "SDM Vol. 1, appendix A; Vol. 2B, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD",
    hosts: Hosts::Any,
    allows: |trial, part| matches!(part, Part::Flag(bit) if trial.retired() && undefined_flags(trial) & bit != 0),
};

/// A 16-bit double shift by more than 16.
pub(crate) const DOUBLE_SHIFT: Row = Row {
    name: "double shift",
    instructions: "SHLD, SHRD with 16-bit operands",
    differs: "the destination, where the count is above 16",
    why: "SDM Vol. 2B, SHLD, SHRD: undefined",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let undefined = matches!(trial.instruction.mnemonic(), M::Shld | M::Shrd)
            && shift_count(trial).is_some_and(|count| count > operand_bits(trial));
        undefined && is_destination(trial, part)
    },
};

/// RDRAND and RDSEED.
pub(crate) const RANDOM: Row = Row {
    name: "random",
    instructions: "RDRAND, RDSEED",
    differs: "the number; CF, where the host has none left",
    why: "SDM Vol. 1, 7.3.17",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let random = matches!(trial.instruction.mnemonic(), M::Rdrand | M::Rdseed);
        let exhausted = trial.native.state.rflags & 1 == 0;
        random && (is_destination(trial, part) || exhausted && part == Part::Flag(1))
    },
};

/// XGETBV.
pub(crate) const XCR0: Row = Row {
    name: "xcr0",
    instructions: "XGETBV",
    differs: "EAX and EDX: which state the operating system has enabled",
    why: "SDM Vol. 3A, 2.6: a choice of the operating system",
    hosts: Hosts::Any,
    allows: |trial, part| {
        trial.instruction.mnemonic() == M::Xgetbv && matches!(part, Part::Gpr(0 | 2))
    },
};

/// PUSH of a segment register.
pub(crate) const PUSH_SEGMENT: Row = Row {
    name: "push segment",
    instructions: "PUSH ES, CS, SS, DS, FS, GS with 32-bit operands",
    differs: "whether the upper two bytes of the stack slot are zeros or stay",
    why: "SDM Vol. 2B, PUSH: recent Core and Atom processors write 16 bits",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let Part::Byte(byte) = part else { return false };
        let pushes = trial.instruction.mnemonic() == M::Push
            && trial.instruction.op0_register().is_segment_register();
        let at = stack_top(trial.native.mode, &trial.native.state);
        let offset = (DATA + byte as u64).wrapping_sub(at);
        pushes && matches!(offset, 2 | 3) && trial.native.state.data[byte] == 0
    },
};

/// The end of 4 GiB.
pub(crate) const FOUR_GIB: Row = Row {
    name: "4 GiB",
    instructions: "any with a memory operand outside 64-bit mode",
    differs: "#GP or #SS for an access that crosses the end of a segment of 4 GiB, or whatever the bytes give",
    why: "SDM Vol. 3A, 5.3: may or may not fault, and may vary",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let (native, soft) = (trial.native.fault, trial.soft.fault);
        let page_fault = if native.vector == 14 { native } else { soft };
        let at_end = page_fault.vector == 14 && page_fault.address >= 0xffff_fe00;
        part == Part::Vector && !trial.before.mode.is_64() && at_end && trial.access_faults()
    },
};

/// What REP makes of the upper halves of registers.
pub(crate) const REP_EXTENSION: Row = Row {
    name: "rep extension",
    instructions: "REP, REPE, REPNE with 32-bit addresses in 64-bit mode",
    differs: "whether the upper halves of RCX, RSI and RDI are zeros where no iteration is completed",
    why: "left open (SDM Vol. 2B, REP; Vol. 1, 3.4.1.1)",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let Part::Gpr(n) = part else { return false };
        let (before, native) = (trial.before.state.gpr[n], trial.native.state.gpr[n]);
        let narrow = address_mask(trial.instruction, trial.before.mode) == 0xffff_ffff;
        matches!(n, 1 | 6 | 7)
            && trial.before.mode.is_64()
            && trial.instruction.is_string_instruction()
            && narrow
            && before as u32 == native as u32
            && (native == before || native >> 32 == 0)
    },
};

/// What PUSHA and POPA have done before a fault.
pub(crate) const POPA: Row = Row {
    name: "pusha, popa",
    instructions: "PUSHA, PUSHAD, POPA, POPAD",
    differs: "after a fault of a later element: which slots are written, or which registers have their new value",
    why: "left open (SDM Vol. 2B, PUSHA/PUSHAD, POPA/POPAD)",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let mnemonic = trial.instruction.mnemonic();
        let top = stack_top(trial.before.mode, &trial.before.state);
        trial.access_faults()
            && match part {
                Part::Gpr(n) => n != 4 && matches!(mnemonic, M::Popa | M::Popad),
                Part::Byte(byte) => {
                    let below = top.wrapping_sub(DATA + byte as u64);
                    matches!(mnemonic, M::Pusha | M::Pushad) && (1..=32).contains(&below)
                }
                _ => false,
            }
    },
};

/// XRSTOR that is refused for MXCSR.
pub(crate) const XRSTOR_MXCSR: Row = Row {
    name: "xrstor mxcsr",
    instructions: "XRSTOR, XRSTOR64",
    differs: "x87 and vector state after #GP for reserved bits of MXCSR: what is loaded by then",
    why: "left open; the interpreter changes nothing",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let restores = matches!(trial.instruction.mnemonic(), M::Xrstor | M::Xrstor64);
        restores && trial.vectors() == (13, 13) && is_unchanged(trial, part)
    },
};

/// Whether the interpreter left a part of x87 or vector state as it was.
fn is_unchanged(trial: &Trial<'_>, part: Part) -> bool {
    let (before, after) = (&trial.before.state, &trial.soft.state);
    let (fx, soft) = (&before.fx, &after.fx);
    match part {
        Part::Control => fx.control == soft.control,
        Part::Status(bit) => (fx.status ^ soft.status) & bit == 0,
        Part::Tags => fx.tags == soft.tags,
        Part::Fop => fx.fop == soft.fop,
        Part::Fip => fx.fip == soft.fip,
        Part::Fdp => fx.fdp == soft.fdp,
        Part::St(n) => fx.st[n][..10] == soft.st[n][..10],
        Part::Xmm(n) => fx.xmm[n] == soft.xmm[n],
        Part::High(n) => before.high[n] == after.high[n],
        _ => false,
    }
}

/// Whether a part belongs to operand 0.
fn is_destination(trial: &Trial<'_>, part: Part) -> bool {
    let instruction = trial.instruction;
    match (part, instruction.op0_kind()) {
        (Part::Gpr(n), OpKind::Register) => instruction.op0_register().number() == n,
        (Part::Byte(byte), OpKind::Memory) => {
            trial.operand_byte(byte) < instruction.memory_size().size() as u64
        }
        _ => false,
    }
}

/// Shift and rotate counts decide which flags are defined.
fn shift_count(trial: &Trial<'_>) -> Option<u32> {
    let instruction = trial.instruction;
    let operand = match instruction.mnemonic() {
        M::Sal | M::Shl | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr => 1,
        M::Shld | M::Shrd => 2,
        _ => return None,
    };
    let count = match instruction.op_kind(operand) {
        OpKind::Register => trial.before.state.gpr[1] as u32,
        _ => instruction.immediate(operand) as u32,
    };
    Some(count & if operand_bits(trial) == 64 { 63 } else { 31 })
}

fn operand_bits(trial: &Trial<'_>) -> u32 {
    let instruction = trial.instruction;
    match instruction.op0_register() {
        Register::None => instruction.memory_size().size() as u32 * 8,
        register => register.size() as u32 * 8,
    }
}

const OF: u64 = 0x800;
const AF: u64 = 0x10;
const CF: u64 = 1;

fn undefined_flags(trial: &Trial<'_>) -> u64 {
    let mnemonic = trial.instruction.mnemonic();
    if let Some(count) = shift_count(trial) {
        let rotate = matches!(mnemonic, M::Rol | M::Ror | M::Rcl | M::Rcr);
        let bits = operand_bits(trial);
        if matches!(mnemonic, M::Shld | M::Shrd) && count > bits {
            return super::super::compare::ARITHMETIC;
        }
        return match count {
            0 => 0,
            1 if rotate => 0,
            1 => AF,
            _ if rotate => OF,
            // CF is undefined for SHL and SHR by the operand's width and more.
            count if count >= bits && mnemonic != M::Sar => OF | AF | CF,
            _ => OF | AF,
        };
    }
    let bits = trial.instruction.rflags_undefined();
    [
        (RflagsBits::OF, OF),
        (RflagsBits::SF, 0x80),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::AF, AF),
        (RflagsBits::CF, CF),
        (RflagsBits::PF, 4),
    ]
    .iter()
    .filter(|(bit, _)| bits & bit != 0)
    .fold(0, |mask, (_, flag)| mask | flag)
}
