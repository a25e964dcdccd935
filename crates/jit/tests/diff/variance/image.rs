//! Images of x87 state, and the last-instruction pointers in them.

use iced_x86::{Mnemonic as M, Register};

use super::super::address::{address_mask, address_of};
use super::numeric::is_x87;
use super::row::{Hosts, Part, Row, Trial};

/// The width of FIP.
pub(crate) const WIDE_FIP: Row = Row {
    name: "wide fip",
    instructions: "FXRSTOR64, XRSTOR64",
    differs: "bits 63:48 of the x87 instruction pointer: as many are kept as linear addresses have, 57 with LA57",
    why: "left open (SDM Vol. 1, 8.1.8 and 10.5.1.1)",
    hosts: Hosts::Wide,
    allows: |trial, part| {
        let loads = matches!(trial.instruction.mnemonic(), M::Fxrstor64 | M::Xrstor64);
        let kept = |fip: u64, bits: u32| ((fip << (64 - bits)) as i64 >> (64 - bits)) as u64;
        let (native, soft) = (trial.native.state.fx.fip, trial.soft.state.fx.fip);
        loads && part == Part::Fip && kept(native, 57) == native && kept(native, 48) == soft
    },
};

/// The x87 data pointer.
pub(crate) const DATA_POINTER: Row = Row {
    name: "data pointer",
    instructions: "x87 with a memory operand",
    differs: "FDP, which also changes without an exception",
    why: "SDM Vol. 1, 8.1.8; Vol. 2A, CPUID.(07H,0):EBX bit 6",
    hosts: Hosts::UpdatingFdp,
    allows: |trial, part| {
        let unmasked = trial.soft.state.fx.status & 0x80 != 0;
        part == Part::Fdp && is_x87(trial.instruction.code()) && !unmasked
    },
};

/// The segments of the pointers.
pub(crate) const SELECTORS: Row = Row {
    name: "pointer segments",
    instructions: "FXSAVE, XSAVE, XSAVEC, XSAVEOPT, FNSTENV, FNSAVE without REX.W",
    differs: "FCS and FDS in the image, where the interpreter writes zeros",
    why: "SDM Vol. 1, 8.1.8; Vol. 2A, CPUID.(07H,0):EBX bit 13",
    hosts: Hosts::KeepingFpuSegments,
    allows: |trial, part| {
        let Part::Byte(byte) = part else { return false };
        let at = trial.operand_byte(byte);
        let segments: &[u64] = match layout(trial) {
            Some(Layout::Area { wide: false }) => &[12, 13, 20, 21],
            Some(Layout::Environment { narrow: false }) => &[16, 17, 24, 25],
            Some(Layout::Environment { narrow: true }) => &[8, 9, 12, 13],
            _ => return false,
        };
        trial.retired() && segments.contains(&at) && trial.soft.state.data[byte] == 0
    },
};

/// Misaligned images in the stack segment.
pub(crate) const ALIGNMENT: Row = Row {
    name: "image alignment",
    instructions: "FXSAVE, FXRSTOR, XSAVE, XSAVEC, XSAVEOPT, XRSTOR outside 64-bit mode",
    differs: "which of #GP and #SS is raised for a misaligned image that reaches beyond the limit of SS",
    why: "SDM Vol. 3A, 6.9: the order within a class depends on the implementation",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let before = trial.before;
        let area = matches!(layout(trial), Some(Layout::Area { .. }));
        let at = address_of(trial.instruction, before.mode, &before.state);
        part == Part::Vector
            && !before.mode.is_64()
            && area
            && !at.is_multiple_of(64)
            && trial.instruction.memory_segment() == Register::SS
            && matches!(trial.vectors(), (12, 13) | (13, 12))
    },
};

/// Images that wrap.
pub(crate) const WRAP: Row = Row {
    name: "image wrap",
    instructions: "the same and FNSTENV, FLDENV, FNSAVE, FRSTOR",
    differs: "vector, error code and CR2 of the fault of an image that reaches beyond the last offset of the address size: its end wraps or does not",
    why: "SDM Vol. 3B, chapter 23, segment wraparound: depends on the processor",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let mode = trial.before.mode;
        let mask = address_mask(trial.instruction, mode);
        let base = trial.before.state.base(mode, trial.instruction.memory_segment().number());
        let offset = address_of(trial.instruction, mode, &trial.before.state).wrapping_sub(base);
        let last = (offset & mask).saturating_add(IMAGE_SIZE);
        matches!(part, Part::Vector | Part::ErrorCode | Part::Address)
            && !mode.is_64()
            && layout(trial).is_some()
            && last > mask
            && trial.access_faults()
    },
};

/// Bytes of the largest image.
const IMAGE_SIZE: u64 = 832;

/// How an image is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    /// That of FXSAVE (SDM Vol. 1, 10.5.1), with 64-bit pointers or not.
    Area { wide: bool },
    /// That of FNSTENV (SDM Vol. 1, figures 8-9 to 8-12): 14 bytes, or 28.
    Environment { narrow: bool },
}

/// The layout of the image that an instruction saves or restores.
pub(super) fn layout(trial: &Trial<'_>) -> Option<Layout> {
    use iced_x86::MemorySize as S;
    Some(match trial.instruction.mnemonic() {
        M::Fxsave | M::Fxrstor | M::Xsave | M::Xsavec | M::Xsaveopt | M::Xrstor => {
            Layout::Area { wide: false }
        }
        M::Fxsave64 | M::Fxrstor64 | M::Xsave64 | M::Xsavec64 | M::Xsaveopt64 | M::Xrstor64 => {
            Layout::Area { wide: true }
        }
        M::Fnstenv | M::Fldenv | M::Fnsave | M::Frstor => Layout::Environment {
            narrow: matches!(trial.instruction.memory_size(), S::FpuEnv14 | S::FpuState94),
        },
        _ => return None,
    })
}
