//! What AMD processors do differently from Intel's to state.

use iced_x86::{Mnemonic as M, OpKind};

use super::super::compare::ARITHMETIC;
use super::image::{Layout, layout};
use super::numeric::place;
use super::row::{Hosts, Part, Row, Trial};

/// The x87 pointers as such.
pub(crate) const POINTERS: Row = Row {
    name: "amd pointers",
    instructions: "any: the kernel saves and restores them with each case",
    differs: "FOP, FIP and FDP: FXSAVE and FXRSTOR leave them out unless an unmasked exception is pending",
    why: "APM Vol. 2, 11.4.4; Vol. 5, FXSAVE, FXRSTOR",
    hosts: Hosts::Amd,
    allows: |_, part| matches!(part, Part::Fop | Part::Fip | Part::Fdp),
};

/// The pointers and other fields in images.
pub(crate) const IMAGE: Row = Row {
    name: "amd image",
    instructions: "FXSAVE, XSAVE, XSAVEC, XSAVEOPT, FNSTENV, FNSAVE",
    differs: "in memory: FOP, FIP, FDP and their segments, MXCSR_MASK (which has a bit for misaligned operands), reserved bytes of the ST slots, XSTATE_BV and, of XSAVEC and XSAVEOPT, components in their initial configuration; whatever of the image is written when a part of it faults",
    why: "APM Vol. 5, FXSAVE; Vol. 4, XSAVE; left open",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let (Part::Byte(byte), Some(layout)) = (part, layout(trial)) else { return false };
        let at = trial.operand_byte(byte);
        let optimizes = matches!(
            trial.instruction.mnemonic(),
            M::Xsavec | M::Xsavec64 | M::Xsaveopt | M::Xsaveopt64
        );
        let (len, differs) = match layout {
            Layout::Area { .. } => (832, optimizes || is_unlike_in_area(at)),
            Layout::Environment { narrow: false } => (108, (12..28).contains(&at)),
            Layout::Environment { narrow: true } => (94, (6..14).contains(&at)),
        };
        at < len && (trial.access_faults() || trial.retired() && differs)
    },
};

/// The fields of an FXSAVE or XSAVE area that AMD processors write differently.
fn is_unlike_in_area(at: u64) -> bool {
    let pointers = (6..24).contains(&at);
    let mask = (28..32).contains(&at);
    let reserved = (32..160).contains(&at) && at % 16 >= 10;
    pointers || mask || reserved || at == 512
}

/// Dot products of NaNs.
pub(crate) const DOT_PRODUCT: Row = Row {
    name: "amd dot product",
    instructions: "DPPS, DPPD, VDPPS, VDPPD",
    differs: "sign and payload of an element that is a NaN on both sides",
    why: "left open (SDM Vol. 2A, DPPS: the order in which NaN products are added up)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let instruction = trial.instruction;
        let wide = match instruction.mnemonic() {
            M::Dpps | M::Vdpps => false,
            M::Dppd | M::Vdppd => true,
            _ => return false,
        };
        let (native, soft) = (&trial.native.state, &trial.soft.state);
        let (n, a, b) = match part {
            Part::Xmm(n) => (n, &native.fx.xmm[n], &soft.fx.xmm[n]),
            Part::High(n) => (n, &native.high[n], &soft.high[n]),
            _ => return false,
        };
        instruction.op0_register().number() == n && differ_in_nans_only(a, b, wide)
    },
};

/// Whether all elements that differ are NaNs on both sides.
fn differ_in_nans_only(a: &[u8; 16], b: &[u8; 16], wide: bool) -> bool {
    let size = if wide { 8 } else { 4 };
    let is_nan = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]).is_nan(),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]).is_nan(),
        _ => false,
    };
    let mut pairs = a.chunks_exact(size).zip(b.chunks_exact(size));
    pairs.all(|(a, b)| a == b || is_nan(a) && is_nan(b))
}

/// Biased exponent below which the cube of a number is not a normal number: 2^-5461.
const SMALL: u16 = 16383 - 5461;

/// Biased exponent of a register.
fn exponent(register: &[u8; 16]) -> u16 {
    u16::from_le_bytes([register[8], register[9]]) & 0x7fff
}

fn is_zero(register: &[u8; 16]) -> bool {
    exponent(register) == 0 && register[..8] == [0; 8]
}

/// The sine of a small number.
pub(crate) const SMALL_SINE: Row = Row {
    name: "amd small sine",
    instructions: "FSIN, FSINCOS, FPTAN",
    differs: "UE, which a nonzero argument below 2^-5461 (its cube is not a normal number) may set; where UE is unmasked also ES, B and the scaled result",
    why: "left open (APM Vol. 1, 6.8.5: whether an intermediate result underflows)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let fx = &trial.before.state.fx;
        let sine = matches!(trial.instruction.mnemonic(), M::Fsin | M::Fsincos | M::Fptan);
        let small = !is_zero(&fx.st[0]) && exponent(&fx.st[0]) < SMALL;
        let unmasked = fx.control & 0x10 == 0;
        sine && small
            && match part {
                Part::Status(0x10) => true,
                Part::Status(0x80 | 0x8000) | Part::St(0 | 1) => unmasked,
                _ => false,
            }
    },
};

/// Denormals that come back as they are.
pub(crate) const UNCHANGED_UNDERFLOW: Row = Row {
    name: "amd unchanged denormal",
    instructions: "FSCALE by zero; FPREM, FPREM1 by infinity",
    differs: "a denormal that comes back underflows where underflow is unmasked: UE, ES, B, condition codes and the scaled ST(0)",
    why: "left open (SDM Vol. 1, 8.5.5)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let fx = &trial.before.state.fx;
        let (_, other) = place(&fx.st[1]);
        let keeps = match trial.instruction.mnemonic() {
            M::Fscale => fx.st[1][..8] == [0; 8],
            M::Fprem | M::Fprem1 => other == 0x7fff << 63,
            _ => return false,
        };
        // UE, PE, ES, B and the condition codes.
        const RAISED: u16 = 0xc7b0;
        let denormal = !is_zero(&fx.st[0]) && exponent(&fx.st[0]) == 0;
        keeps
            && denormal
            && fx.control & 0x10 == 0
            && match part {
                Part::Status(bit) => bit & RAISED != 0,
                Part::St(0) => true,
                _ => false,
            }
    },
};

/// The change to MMX operation.
pub(crate) const MMX_STORE: Row = Row {
    name: "amd mmx store",
    instructions: "MOVD, MOVQ, MOVNTQ, MASKMOVQ that store an MMX register",
    differs: "tags, TOP and so the numbers of ST registers, where the store faults: the change to MMX operation comes before the fault or not",
    why: "left open (SDM Vol. 1, 9.5.1)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let stores =
            matches!(trial.instruction.mnemonic(), M::Maskmovq | M::Movd | M::Movq | M::Movntq)
                && (0..2).any(|n| trial.instruction.op_register(n).is_mm());
        stores
            && trial.access_faults()
            && matches!(part, Part::Tags | Part::Status(0x800 | 0x1000 | 0x2000) | Part::St(_))
    },
};

/// Ten bytes at once.
pub(crate) const EXTENDED_STORE: Row = Row {
    name: "amd extended store",
    instructions: "FSTP m80, FBSTP",
    differs: "which of the ten bytes are written, where the last of them fault",
    why: "left open (SDM Vol. 2A, FSTP)",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let stores = matches!(trial.instruction.mnemonic(), M::Fstp | M::Fbstp);
        matches!(part, Part::Byte(byte) if stores && trial.access_faults() && trial.operand_byte(byte) < 10)
    },
};

/// Gathers that fault half way.
pub(crate) const GATHER: Row = Row {
    name: "amd gather",
    instructions: "VPGATHERDD, VPGATHERDQ, VPGATHERQD, VPGATHERQQ, VGATHERDPS, VGATHERDPD, VGATHERQPS, VGATHERQPD",
    differs: "after a fault: which elements of destination and mask are done, what is zero above them, and which of several faulting elements CR2 names",
    why: "SDM Vol. 2C, VPGATHERQQ: elements after the faulting one may or may not be complete; APM Vol. 4 says less",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        if !trial.instruction.is_vsib() || !trial.access_faults() {
            return false;
        }
        let named = |n| [0, 2].iter().any(|&i| trial.instruction.op_register(i).number() == n);
        match part {
            Part::Xmm(n) | Part::High(n) => named(n),
            Part::Address => trial.vectors() == (14, 14),
            _ => false,
        }
    },
};

/// The flags of a repeated comparison that faults.
pub(crate) const REPEATED_FLAGS: Row = Row {
    name: "amd repeated flags",
    instructions: "CMPS, SCAS with REPE or REPNE",
    differs: "arithmetic flags after a fault: those of the last iteration, where Intel's are as before",
    why: "SDM Vol. 2B, REP, against APM Vol. 3, 1.2.6",
    hosts: Hosts::Amd,
    allows: |trial, part| {
        let instruction = trial.instruction;
        let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
        matches!(part, Part::Flag(bit) if compares(trial) && repeated && trial.access_faults()
            && ARITHMETIC & bit != 0)
    },
};

/// Whether an instruction compares strings.
pub(super) fn compares(trial: &Trial<'_>) -> bool {
    let string =
        trial.instruction.is_string_instruction() && trial.instruction.op0_kind() != OpKind::Memory;
    string
        && matches!(
            trial.instruction.mnemonic(),
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
        )
}
