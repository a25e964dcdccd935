//! Which exception AMD processors raise where Intel's raise another, or none.

use iced_x86::{CpuidFeature, Mnemonic as M, OpKind, Register};

use super::super::address::{address_mask, address_of, stack_top};
use super::super::case::{DATA, RETIRED};
use super::amd::compares;
use super::image::layout;
use super::numeric::is_x87;
use super::row::{Hosts, Part, Row, is_access_fault};

const UD: u64 = 6;
const SS: u64 = 12;
const GP: u64 = 13;
const PF: u64 = 14;
const XM: u64 = 19;

/// A non-canonical address in the stack segment.
pub(crate) const IMAGE_STACK: Row = Row {
    name: "amd image #GP",
    instructions: "FXSAVE, FXRSTOR, XSAVE, XSAVEC, XSAVEOPT, XRSTOR, FNSTENV, FLDENV, FNSAVE, FRSTOR and their 64-bit forms",
    differs: "#GP instead of #SS for a non-canonical address by RSP or RBP",
    why: "SDM Vol. 1, 3.3.7.1 says #SS; of XSAVE, APM Vol. 4 lists both",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let stack = trial.instruction.memory_segment() == Register::SS;
        part == Part::Vector && layout(trial).is_some() && stack && trial.vectors() == (GP, SS)
    },
};

/// Which byte of an image is looked at first.
pub(crate) const IMAGE_ADDRESS: Row = Row {
    name: "amd image address",
    instructions: "the same",
    differs: "which byte CR2 names after #PF",
    why: "left open",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        part == Part::Address && layout(trial).is_some() && trial.vectors() == (PF, PF)
    },
};

/// Misalignment in the stack segment.
pub(crate) const STACK_ALIGNMENT: Row = Row {
    name: "amd stack alignment",
    instructions: "those with an aligned vector operand, outside 64-bit mode",
    differs: "which of #GP and #SS is raised for a misaligned operand beyond the limit of SS",
    why: "SDM Vol. 3A, 6.9: the order within a class depends on the implementation",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let (instruction, before) = (trial.instruction, trial.before);
        let size = instruction.memory_size().size() as u64;
        let at = address_of(instruction, before.mode, &before.state);
        let misaligned = matches!(size, 16 | 32) && !at.is_multiple_of(size);
        part == Part::Vector
            && !before.mode.is_64()
            && instruction.memory_segment() == Register::SS
            && misaligned
            && matches!(trial.vectors(), (GP, SS) | (SS, GP))
    },
};

/// Operands of SHA instructions.
pub(crate) const SHA_ALIGNMENT: Row = Row {
    name: "amd sha alignment",
    instructions: "SHA1RNDS4 and the other SHA instructions with a memory operand",
    differs: "no #GP for a misaligned operand",
    why: "SDM Vol. 2A, table 2-21 (type 4), against APM Vol. 4, SHA1RNDS4 (MXCSR.MM)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let sha = trial.instruction.code().cpuid_features().contains(&CpuidFeature::SHA);
        let (native, soft) = trial.vectors();
        part == Part::Vector && sha && soft == GP && native != GP
    },
};

/// Where a call goes.
pub(crate) const CALL_TARGET: Row = Row {
    name: "amd call target",
    instructions: "CALL",
    differs: "#GP for the target before the fault of the push, and before the return address is written below the stack pointer",
    why: "SDM Vol. 2A, CALL has this order; Intel processors push first",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let (native, soft) = trial.vectors();
        let top = stack_top(trial.before.mode, &trial.before.state);
        let slot = top.wrapping_sub(8)..top;
        trial.instruction.mnemonic() == M::Call
            && native == GP
            && is_access_fault(soft)
            && match part {
                Part::Vector | Part::ErrorCode | Part::Address => true,
                Part::Byte(byte) => slot.contains(&(DATA + byte as u64)),
                _ => false,
            }
    },
};

/// String I/O that does nothing.
pub(crate) const PORT_COUNT: Row = Row {
    name: "amd port count",
    instructions: "INS, OUTS with REP",
    differs: "no #GP for the port where the count is zero",
    why: "left open (SDM Vol. 2A, INS; Vol. 2B, REP)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        use M::{Insb, Insd, Insw, Outsb, Outsd, Outsw};
        let port =
            matches!(trial.instruction.mnemonic(), Insb | Insw | Insd | Outsb | Outsw | Outsd);
        let mask = address_mask(trial.instruction, trial.before.mode);
        let none = trial.before.state.gpr[1] & mask == 0;
        part == Part::Vector && port && none && trial.vectors() == (RETIRED, GP)
    },
};

/// A store that a numeric exception prevents.
pub(crate) const NUMERIC_STORE: Row = Row {
    name: "amd numeric store",
    instructions: "x87 stores",
    differs: "the fault of the address, where an unmasked numeric exception prevents the store",
    why: "left open (SDM Vol. 1, 8.6)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let (native, soft) = trial.vectors();
        let prevented = soft == RETIRED && trial.soft.state.fx.status & 0x80 != 0;
        let stores = trial.instruction.op0_kind() == OpKind::Memory;
        part == Part::Vector
            && is_x87(trial.instruction.code())
            && stores
            && is_access_fault(native)
            && prevented
    },
};

/// A store of half-precision numbers that faults.
pub(crate) const HALF_STORE: Row = Row {
    name: "amd half store",
    instructions: "VCVTPS2PH to memory",
    differs: "where the store faults: the fault comes before #XM, and MXCSR has none of the conversion's flags",
    why: "left open (SDM Vol. 2C, VCVTPS2PH; Vol. 1, 11.5.2)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let stores = trial.instruction.mnemonic() == M::Vcvtps2ph
            && trial.instruction.op0_kind() == OpKind::Memory;
        let (native, soft) = trial.vectors();
        let before = trial.before.state.fx.mxcsr == trial.native.state.fx.mxcsr;
        stores
            && is_access_fault(native)
            && match part {
                Part::Vector | Part::ErrorCode | Part::Address => soft == XM,
                Part::Mxcsr(_) => before,
                _ => false,
            }
    },
};

/// A bit of the VEX prefix that has one value.
pub(crate) const VEX_W: Row = Row {
    name: "amd vex w",
    instructions: "VPERMQ, VPERMPD with VEX.W 0, outside 64-bit mode",
    differs: "they run as with VEX.W 1, and are no #UD",
    why: "SDM Vol. 2C, VPERMQ, has #UD; left open by APM Vol. 4",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let code = &trial.before.code;
        let prefix = code.windows(4).any(|bytes| {
            matches!(*bytes, [0xc4, map, w, 0x00 | 0x01] if map & 0x1f == 3 && w & 0x84 == 4)
        });
        let (native, soft) = trial.vectors();
        let runs = trial.instruction.is_invalid() && soft == UD && native != UD;
        runs && prefix && !trial.before.mode.is_64() && part != Part::Code
    },
};

/// Which operand of a comparison faults first.
pub(crate) const STRING_ORDER: Row = Row {
    name: "amd string order",
    instructions: "CMPS, SCAS",
    differs: "which exception is raised, where both operands fault",
    why: "left open (SDM Vol. 2A, CMPS)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        compares(trial)
            && trial.access_faults()
            && matches!(part, Part::Vector | Part::ErrorCode | Part::Address)
    },
};

/// Bytes that a mask leaves out.
pub(crate) const MASKED_MMX: Row = Row {
    name: "amd masked bytes",
    instructions: "MASKMOVQ, MASKMOVDQU, VMASKMOVDQU",
    differs: "#PF for bytes that the mask leaves out, and which byte CR2 names",
    why: "SDM Vol. 2B, MASKMOVDQU: implementation dependent",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let masked =
            matches!(trial.instruction.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu);
        masked
            && match part {
                Part::Vector => trial.vectors() == (PF, RETIRED),
                Part::Address => trial.vectors() == (PF, PF),
                _ => false,
            }
    },
};

/// Which element of a masked access faults.
pub(crate) const MASKED_ADDRESS: Row = Row {
    name: "amd masked address",
    instructions: "VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ",
    differs: "which element faults first: what CR2 names after #PF, and outside 64-bit mode whether it is #PF or the fault of the segment",
    why: "left open (SDM Vol. 2C, VMASKMOV)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let masked = matches!(
            trial.instruction.mnemonic(),
            M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq
        );
        masked
            && match part {
                Part::Vector => trial.access_faults() && !trial.before.mode.is_64(),
                Part::Address => trial.vectors() == (PF, PF),
                _ => false,
            }
    },
};
