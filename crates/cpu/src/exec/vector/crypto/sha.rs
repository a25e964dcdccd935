//! The SHA extensions (SDM Vol. 2B, SHA1MSG1 and following; FIPS 180-4).

use crate::cpu::Cpu;
use crate::exec::table::{self, vector_rows};
use crate::exec::vector::form::{self, sse, sse_imm};
use crate::exec::vector::lane::{Element, Lane};
use crate::exit::Exec;
use crate::op::{Handler, LEGACY, NO_MEMORY, Op};

vector_rows! {
    Sha1rnds4 => table::choose(|_, op| sse_imm!(op, M128, sha1rnds4)),
    Sha1nexte => table::choose(|_, op| sse!(op, M128, sha1nexte)),
    Sha1msg1 => table::choose(|_, op| sse!(op, M128, sha1msg1)),
    Sha1msg2 => table::choose(|_, op| sse!(op, M128, sha1msg2)),
    Sha256rnds2 => table::choose(|_, op| match op.mem_operand {
        NO_MEMORY => handle_sha256rnds2::<{ form::REGISTER }> as Handler,
        _ => handle_sha256rnds2::<{ form::M128 }>,
    }),
    Sha256msg1 => table::choose(|_, op| sse!(op, M128, sha256msg1)),
    Sha256msg2 => table::choose(|_, op| sse!(op, M128, sha256msg2)),
}

extern "C" fn handle_sha256rnds2<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let words = cpu.arch.vector.xmm(0);
    form::binary::<LEGACY, KIND>(cpu, op, |a, b| sha256rnds2(a, b, words))
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// SHA1RNDS4: four rounds; the immediate picks function and constant.
#[must_use]
pub(crate) fn sha1rnds4(state: Lane, words: Lane, imm: u8) -> Lane {
    let [mut d, mut c, mut b, mut a] = u32::split(state);
    let mut words = u32::split(words);
    words.reverse();
    // E is in the first word already.
    let mut e = 0u32;
    for word in words {
        let (f, k) = match imm & 3 {
            0 => (choose(b, c, d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (majority(b, c, d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let next =
            f.wrapping_add(a.rotate_left(5)).wrapping_add(word).wrapping_add(e).wrapping_add(k);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    u32::join([d, c, b, a])
}

/// SHA1NEXTE: E of four rounds on, added to the next words.
#[must_use]
pub(crate) fn sha1nexte(state: Lane, words: Lane) -> Lane {
    let e = u32::split(state)[3].rotate_left(30);
    let mut words = u32::split(words);
    words[3] = words[3].wrapping_add(e);
    u32::join(words)
}

/// SHA1MSG1: the first step of the message schedule.
#[must_use]
pub(crate) fn sha1msg1(a: Lane, b: Lane) -> Lane {
    let [w3, w2, w1, w0] = u32::split(a);
    let [_, _, w5, w4] = u32::split(b);
    u32::join([w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0])
}

/// SHA1MSG2: the last step of the message schedule.
#[must_use]
pub(crate) fn sha1msg2(a: Lane, b: Lane) -> Lane {
    let [a3, a2, a1, a0] = u32::split(a);
    let [w15, w14, w13, _] = u32::split(b);
    let w16 = (a0 ^ w13).rotate_left(1);
    let w17 = (a1 ^ w14).rotate_left(1);
    let w18 = (a2 ^ w15).rotate_left(1);
    let w19 = (a3 ^ w16).rotate_left(1);
    u32::join([w19, w18, w17, w16])
}

/// SHA256RNDS2: two rounds with the sums of words and constants in `words`.
#[must_use]
pub(crate) fn sha256rnds2(a: Lane, b: Lane, words: Lane) -> Lane {
    let [h0, g0, d0, c0] = u32::split(a);
    let [f0, e0, b0, a0] = u32::split(b);
    let mut s = [a0, b0, c0, d0, e0, f0, g0, h0];
    for word in [words[0] as u32, (words[0] >> 32) as u32] {
        let [a, b, c, d, e, f, g, h] = s;
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = choose(e, f, g).wrapping_add(sum1).wrapping_add(word).wrapping_add(h);
        let t2 = majority(a, b, c).wrapping_add(sum0);
        s = [t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g];
    }
    u32::join([s[5], s[4], s[1], s[0]])
}

fn sigma0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}

fn sigma1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

/// SHA256MSG1: the first step of the message schedule.
#[must_use]
pub(crate) fn sha256msg1(a: Lane, b: Lane) -> Lane {
    let [w0, w1, w2, w3] = u32::split(a);
    let w4 = b[0] as u32;
    u32::join([
        w0.wrapping_add(sigma0(w1)),
        w1.wrapping_add(sigma0(w2)),
        w2.wrapping_add(sigma0(w3)),
        w3.wrapping_add(sigma0(w4)),
    ])
}

/// SHA256MSG2: the last step of the message schedule.
#[must_use]
pub(crate) fn sha256msg2(a: Lane, b: Lane) -> Lane {
    let [a0, a1, a2, a3] = u32::split(a);
    let [_, _, w14, w15] = u32::split(b);
    let w16 = a0.wrapping_add(sigma1(w14));
    let w17 = a1.wrapping_add(sigma1(w15));
    let w18 = a2.wrapping_add(sigma1(w16));
    let w19 = a3.wrapping_add(sigma1(w17));
    u32::join([w16, w17, w18, w19])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's first example: the block of the message "abc".
    fn abc() -> [u32; 16] {
        let mut block = [0; 16];
        block[0] = 0x6162_6380;
        block[15] = 24;
        block
    }

    fn add(a: Lane, b: Lane) -> Lane {
        crate::exec::vector::lane::zip(a, b, u32::wrapping_add)
    }

    #[test]
    fn sha_1_of_abc_is_the_published_digest() {
        let mut w: Vec<Lane> =
            abc().chunks(4).map(|c| u32::join([c[3], c[2], c[1], c[0]])).collect();
        for i in 4..20 {
            let first = sha1msg1(w[i - 4], w[i - 3]);
            let mixed = [first[0] ^ w[i - 2][0], first[1] ^ w[i - 2][1]];
            w.push(sha1msg2(mixed, w[i - 1]));
        }
        let start = u32::join([0x1032_5476, 0x98ba_dcfe, 0xefcd_ab89, 0x6745_2301]);
        let e = u32::join([0, 0, 0, 0xc3d2_e1f0]);

        let mut state = start;
        let mut with_e = add(e, w[0]);
        for i in 0..20 {
            let next = sha1rnds4(state, with_e, (i / 5) as u8);
            with_e = sha1nexte(state, w.get(i + 1).copied().unwrap_or(e));
            state = next;
        }

        let digest = u32::split(add(start, state));
        assert_eq!(digest, [0x7850_c26c, 0xba3e_2571, 0x4706_816a, 0xa999_3e36]);
        assert_eq!(u32::split(with_e)[3], 0x9cd0_d89d);
    }

    #[test]
    fn sha_256_of_abc_is_the_published_digest() {
        // The constants are the fractions of the cube roots of the first 64 primes.
        let primes = (2u64..312).filter(|n| (2..*n).all(|d| n % d != 0));
        let k: Vec<u32> = primes
            .map(|p| {
                let target = u128::from(p) << 96;
                let mut root = 0u128;
                for bit in (0..36).rev() {
                    let next = root | 1 << bit;
                    if next * next * next <= target {
                        root = next;
                    }
                }
                root as u32
            })
            .collect();
        let mut w: Vec<Lane> =
            abc().chunks(4).map(|c| u32::join([c[0], c[1], c[2], c[3]])).collect();
        for i in 4..16 {
            let [_, a1, a2, a3] = u32::split(w[i - 2]);
            let middle = u32::join([a1, a2, a3, w[i - 1][0] as u32]);
            w.push(sha256msg2(add(sha256msg1(w[i - 4], w[i - 3]), middle), w[i - 1]));
        }
        let mut abef = u32::join([0x9b05_688c, 0x510e_527f, 0xbb67_ae85, 0x6a09_e667]);
        let mut cdgh = u32::join([0x5be0_cd19, 0x1f83_d9ab, 0xa54f_f53a, 0x3c6e_f372]);
        let start = (abef, cdgh);

        for (i, &words) in w.iter().enumerate() {
            let sum = add(words, u32::join([k[4 * i], k[4 * i + 1], k[4 * i + 2], k[4 * i + 3]]));
            cdgh = sha256rnds2(cdgh, abef, sum);
            abef = sha256rnds2(abef, cdgh, [sum[1], 0]);
        }

        let digest = (u32::split(add(start.0, abef)), u32::split(add(start.1, cdgh)));
        assert_eq!(digest.0, [0x9617_7a9c, 0xb003_61a3, 0x8f01_cfea, 0xba78_16bf]);
        assert_eq!(digest.1, [0xf200_15ad, 0xb410_ff61, 0x5dae_2223, 0x4141_40de]);
    }
}
