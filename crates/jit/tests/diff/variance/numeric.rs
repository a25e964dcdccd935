//! What the manuals leave open of floating point.

use iced_x86::{Code, CpuidFeature, Mnemonic as M};

use super::row::{Hosts, Part, Row, Trial};

const C0: u16 = 0x100;
const C1: u16 = 0x200;
const C2: u16 = 0x400;
const C3: u16 = 0x4000;

/// Condition codes that the manual calls undefined.
pub(crate) const CONDITIONS: Row = Row {
    name: "condition codes",
    instructions: "x87 but comparisons, FXAM, FPREM, FPREM1 and control",
    differs: "C0, C2 and C3, which are undefined; after transcendental ones C1, which tells the direction of a rounding",
    why: "SDM Vol. 1, table 8-1",
    hosts: Hosts::Any,
    allows: |trial, part| matches!(part, Part::Status(bit) if undefined_conditions(trial.instruction.code()) & bit != 0),
};

/// Transcendental results.
pub(crate) const ULP: Row = Row {
    name: "ulp",
    instructions: "F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS, FSINCOS",
    differs: "the last place of a result, by one",
    why: "SDM Vol. 1, 8.3.10; APM Vol. 1, 6.4.5: within one unit in the last place",
    hosts: Hosts::Any,
    allows: |trial, part| matches!(part, Part::St(n) if is_transcendental(trial) && are_neighbours(trial, n)),
};

/// Transcendental results at the ends of the range.
pub(crate) const ULP_RANGE: Row = Row {
    name: "ulp at the range's ends",
    instructions: "the same",
    differs: "UE or OE, where the two results are neighbours and one is at most the smallest normal number, or the largest finite one",
    why: "SDM Vol. 1, 8.3.10: which of the two it is decides whether it is tiny or overflows",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let Part::Status(bit) = part else { return false };
        is_transcendental(trial) && (0..2).any(|n| is_border(trial, n, bit))
    },
};

/// RCPPS and RSQRTPS.
pub(crate) const APPROXIMATION: Row = Row {
    name: "approximation",
    instructions: "RCPPS, RCPSS, RSQRTPS, RSQRTSS and their VEX forms",
    differs: "elements, by 3 * 2^-12 of their value: each side may be off by half of that",
    why: "SDM Vol. 2B, RCPPS, RSQRTPS",
    hosts: Hosts::Any,
    allows: |trial, part| {
        let (native, soft) = (&trial.native.state, &trial.soft.state);
        is_approximate(trial.instruction.mnemonic())
            && match part {
                Part::Xmm(n) => is_near(&native.fx.xmm[n], &soft.fx.xmm[n]),
                Part::High(n) => is_near(&native.high[n], &soft.high[n]),
                _ => false,
            }
    },
};

/// x87 condition codes that an instruction leaves undefined.
fn undefined_conditions(code: Code) -> u16 {
    match code.mnemonic() {
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C0 | C1 | C3,
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan => C0 | C1 | C2 | C3,
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst
        | M::Fxam
        | M::Fprem
        | M::Fprem1
        | M::Fnclex
        | M::Fninit
        | M::Fnstsw
        | M::Fnstcw
        | M::Fldcw
        | M::Fnop
        | M::Ffree
        | M::Ffreep => 0,
        _ if is_x87(code) => C0 | C2 | C3,
        _ => 0,
    }
}

pub(super) fn is_x87(code: Code) -> bool {
    use CpuidFeature as F;
    code.cpuid_features().iter().any(|feature| matches!(feature, F::FPU | F::FPU287 | F::FPU387))
}

fn is_transcendental(trial: &Trial<'_>) -> bool {
    matches!(
        trial.instruction.mnemonic(),
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan
    )
}

/// Sign and place of a register among the numbers of its sign; the explicit integer bit is left
/// out so that neighbours across a power of two are neighbours.
pub(super) fn place(register: &[u8; 16]) -> (bool, u128) {
    let mut bytes = [0; 16];
    bytes[..10].copy_from_slice(&register[..10]);
    let value = u128::from_le_bytes(bytes);
    let sign = value >> 79 & 1 != 0;
    (sign, (value >> 64 & 0x7fff) << 63 | value & u128::from(u64::MAX >> 1))
}

fn distance(trial: &Trial<'_>, n: usize) -> u128 {
    let (native, soft) = (place(&trial.native.state.fx.st[n]), place(&trial.soft.state.fx.st[n]));
    if native.0 == soft.0 { native.1.abs_diff(soft.1) } else { native.1 + soft.1 }
}

/// Whether the two results in ST(n) are numbers and neighbours.
fn are_neighbours(trial: &Trial<'_>, n: usize) -> bool {
    const INFINITY: u128 = 0x7fff << 63;
    let places = [trial.native, trial.soft].map(|side| place(&side.state.fx.st[n]).1);
    distance(trial, n) <= 1 && places.iter().all(|&place| place <= INFINITY)
}

/// Whether the two results in ST(n) are neighbours where an exception flag depends on which it is.
fn is_border(trial: &Trial<'_>, n: usize, flag: u16) -> bool {
    const SMALLEST_NORMAL: u128 = 1 << 63;
    const LARGEST: u128 = (0x7ffe << 63) | (u64::MAX >> 1) as u128;
    const UE: u16 = 0x10;
    const OE: u16 = 8;
    let (native, soft) = (place(&trial.native.state.fx.st[n]), place(&trial.soft.state.fx.st[n]));
    match flag {
        UE => distance(trial, n) == 1 && native.1.min(soft.1) <= SMALLEST_NORMAL,
        // An overflow that is rounded towards zero: a value next to it is in range.
        OE => distance(trial, n) <= 1 && native.1.max(soft.1) >= LARGEST,
        _ => false,
    }
}

/// Whether a result is an approximation, of which processors have their own.
pub(crate) const fn is_approximate(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
    )
}

fn is_near(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.chunks_exact(4).zip(b.chunks_exact(4)).all(|(a, b)| {
        let float = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        let (x, y) = (f64::from(float(a)), f64::from(float(b)));
        a == b || ((x - y) / y).abs() <= 2.0 * 1.5 / 4096.0
    })
}
