//! The fuzz target of the translator, with bytes from a fixed seed.
#![cfg(target_arch = "x86_64")]

mod translator;
#[path = "../diff/blocks/undefined.rs"]
mod undefined;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Bytes that ordinary instructions begin with, so that more than one runs.
const ORDINARY: [u8; 24] = [
    0x01, 0x03, 0x09, 0x21, 0x29, 0x31, 0x39, 0x40, 0x48, 0x50, 0x58, 0x66, 0x74, 0x83, 0x85, 0x88,
    0x89, 0x8b, 0x8d, 0xc1, 0xd3, 0xe2, 0xeb, 0xff,
];

#[test]
fn any_bytes_end_translated_as_they_do_interpreted() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    translator::translator(&[]);
    for _ in 0..800 {
        let mut bytes = vec![0; 20 + random.next_u32() as usize % 60];
        random.fill_bytes(&mut bytes);
        for byte in bytes.iter_mut().skip(19) {
            if random.next_u32() & 1 == 0 {
                *byte = ORDINARY[random.next_u32() as usize % ORDINARY.len()];
            }
        }
        translator::translator(&bytes);
    }
}
