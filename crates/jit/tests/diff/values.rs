//! States that reach the special cases of instructions.

use super::case::{CODE, DATA_LEN, Fx, Mode, State};
use super::place::effective_address;
use super::random::Random;
use super::segments::{self, DS, ES, SS, USER_DS};

/// A random state for a case of a mode.
pub(crate) fn state(mode: Mode, random: &mut Random) -> State {
    let mut state = State {
        gpr: [0; 16],
        rip: CODE,
        rflags: 0x202,
        fs_base: segment_base(random),
        gs_base: segment_base(random),
        selectors: selectors(mode, random),
        fx: fx(random),
        high: [[0; 16]; 16],
        data: [0; DATA_LEN],
    };
    for value in &mut state.gpr {
        *value = integer(random);
    }
    for (n, segment) in [(4, SS), (6, DS), (7, ES)] {
        if !random.one_in(20) {
            let address = effective_address(random);
            state.gpr[n] = address.wrapping_sub(state.base(mode, segment));
        }
    }
    if !mode.is_64() {
        state.rip = CODE - state.base(mode, segments::CS);
        // What a 16-bit stack pointer or index leaves out.
        for n in [4, 6, 7] {
            if random.one_in(4) {
                state.gpr[n] ^= random.next() << 16;
            }
        }
    }
    // CF PF AF ZF SF OF, now and then DF.
    state.rflags |= random.next() & 0x8d5;
    if random.one_in(8) {
        state.rflags |= 0x400;
    }
    for chunk in state.data.chunks_exact_mut(16) {
        let value = if random.one_in(4) { vector(random) } else { random_16(random) };
        chunk.copy_from_slice(&value);
    }
    state
}

/// ES, CS, SS, DS, FS and GS.
fn selectors(mode: Mode, random: &mut Random) -> [u16; 6] {
    let (code, data, stack): (&[u16], &[u16], &[u16]) = match mode {
        Mode::Bits64 => return [0, 0x33, USER_DS, 0, 0, 0],
        Mode::Bits32 => (&segments::CODE_32, &segments::DATA_32, &segments::STACK_32),
        Mode::Bits16 => (&segments::CODE_16, &segments::DATA_16, &segments::STACK_16),
    };
    let mut any = |from: &[u16]| if random.one_in(24) { 0 } else { random.pick(from) };
    let [es, ds] = [any(data), any(data)];
    let [fs, gs] = [any(&segments::DATA_32), any(&segments::DATA_16)];
    [es, random.pick(code), random.pick(stack), ds, fs, gs]
}

/// A canonical address.
pub(crate) fn segment_base(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => random.below(1 << 20),
        2 => random.next() >> 17,
        _ => !(random.next() >> 17),
    }
}

fn random_16(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_le_bytes());
    bytes[8..].copy_from_slice(&random.next().to_le_bytes());
    bytes
}

fn integer(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.below(8),
        1 => 1u64 << random.below(64),
        2 => (1u64 << random.below(64)).wrapping_sub(1),
        3 => random.pick(&[0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, u64::MAX]),
        4 => random.next() >> random.below(64),
        _ => random.next(),
    }
}

/// 16 bytes: integers, or floats of either width with many special ones.
pub(crate) fn vector(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    match random.below(4) {
        0 => return random_16(random),
        1 => {
            for chunk in bytes.chunks_exact_mut(8) {
                chunk.copy_from_slice(&integer(random).to_le_bytes());
            }
        }
        2 => {
            for chunk in bytes.chunks_exact_mut(4) {
                chunk.copy_from_slice(&single(random).to_le_bytes());
            }
        }
        _ => {
            for chunk in bytes.chunks_exact_mut(8) {
                chunk.copy_from_slice(&double(random).to_le_bytes());
            }
        }
    }
    bytes
}

/// A float of `exponent_bits` and `fraction_bits`, special in many ways.
fn float(random: &mut Random, exponent_bits: u32, fraction_bits: u32) -> u64 {
    let bias = (1u64 << (exponent_bits - 1)) - 1;
    let top = (1u64 << exponent_bits) - 1;
    let exponent = match random.below(12) {
        0 => 0,
        1 => top,
        2 => 1 + random.below(3),
        3 => top - 1 - random.below(3),
        4..9 => bias + random.below(70) - 35,
        _ => random.next() & top,
    };
    let fraction = match random.below(6) {
        0 => 0,
        1 => (1u64 << fraction_bits) - 1,
        2 => 1u64 << random.below(u64::from(fraction_bits)),
        3 => random.next() << random.below(u64::from(fraction_bits)),
        _ => random.next(),
    } & ((1u64 << fraction_bits) - 1);
    (random.below(2) << (exponent_bits + fraction_bits)) | exponent << fraction_bits | fraction
}

fn single(random: &mut Random) -> u32 {
    float(random, 8, 23) as u32
}

fn double(random: &mut Random) -> u64 {
    float(random, 11, 52)
}

/// An 80-bit register: normal values mostly, every special class sometimes.
fn extended(random: &mut Random) -> [u8; 16] {
    let bits = float(random, 15, 48);
    let mut sign_exp = (bits >> 48) as u16;
    let mut mantissa = 1 << 63
        | match random.below(3) {
            0 => random.next() >> 1,
            1 => (bits & 0xffff_ffff_ffff) << 15,
            _ => 0,
        };
    if sign_exp & 0x7fff == 0 || random.one_in(24) {
        // Denormals, zeros, and encodings that the 387 and later do not support.
        mantissa &= !(1 << 63);
    }
    if random.one_in(16) {
        (sign_exp, mantissa) = (sign_exp & 0x8000, 0);
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
    bytes[8..10].copy_from_slice(&sign_exp.to_le_bytes());
    bytes
}

fn fx(random: &mut Random) -> Fx {
    let masked = !random.one_in(6);
    let control = 0x40
        | if masked { 0x3f } else { random.below(0x40) as u16 }
        | (random.pick(&[0u16, 2, 3, 3, 3]) << 8)
        | (random.below(4) as u16) << 10;
    // Condition codes and TOP; flags mostly where nothing is pending by them.
    let mut status = (random.next() as u16) & 0x7f00;
    if masked || random.one_in(8) {
        status |= random.below(0x40) as u16;
    }
    if status & !control & 0x3f != 0 {
        // ES and B: they follow from the others.
        status |= 0x8080;
    }
    let mut mxcsr = random.next() as u32 & 0xe07f;
    mxcsr |= if random.one_in(6) { random.next() as u32 & 0x1f80 } else { 0x1f80 };
    if random.one_in(2) {
        // Neither DAZ nor FTZ.
        mxcsr &= !0x8040;
    }
    Fx {
        control,
        status,
        tags: if random.one_in(3) { random.next() as u8 } else { 0xff },
        reserved: 0,
        fop: random.next() as u16 & 0x7ff,
        fip: segment_base(random),
        fdp: segment_base(random),
        mxcsr,
        mxcsr_mask: 0,
        st: std::array::from_fn(|_| extended(random)),
        xmm: std::array::from_fn(|_| vector(random)),
        rest: [0; 96],
    }
}
