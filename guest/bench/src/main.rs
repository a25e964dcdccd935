//! Integer and memory loops, timed by the clock of the machine they run on.
//!
//! The same program runs in Cloister, under another emulator and on the host,
//! so the figures compare. Each loop prints `bench NAME NANOSECONDS CHECKSUM`;
//! the checksum must be the same everywhere.

use std::hint::black_box;
use std::time::Instant;

/// A loop: its name and what it computes.
type Loop = (&'static str, fn() -> u64);

const LOOPS: [Loop; 5] = [
    ("integer", integer),
    ("multiply", multiply),
    ("branch", branch),
    ("memory-stream", memory_stream),
    ("memory-chase", memory_chase),
];

fn main() {
    for (name, body) in LOOPS {
        let start = Instant::now();
        let sum = black_box(body());
        println!("bench {name} {} {sum:#x}", start.elapsed().as_nanos());
    }
}

/// Xorshift: shifts, exclusive or and addition, all in registers.
fn integer() -> u64 {
    let (mut x, mut sum) = (0x9e37_79b9_7f4a_7c15_u64, 0_u64);
    for _ in 0..black_box(8_000_000_u32) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum = sum.wrapping_add(x);
    }
    sum
}

/// A multiplication and a division every round.
fn multiply() -> u64 {
    let mut x = 1_u64;
    for i in 1..=black_box(2_000_000_u64) {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i);
        x ^= (x >> 32) / (i | 1);
    }
    x
}

/// Data-dependent branches and calls that are not inlined.
fn branch() -> u64 {
    #[inline(never)]
    fn step(n: u64) -> u64 {
        if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 }
    }
    let mut steps = 0_u64;
    for start in 1..=black_box(20_000_u64) {
        let mut n = start;
        while n != 1 {
            n = step(n);
            steps += 1;
        }
    }
    steps
}

/// Writes and reads 8 MiB in order, several times.
fn memory_stream() -> u64 {
    let mut words = vec![0_u64; 1 << 20];
    let mut sum = 0_u64;
    for round in 0..black_box(4_u64) {
        for (i, word) in words.iter_mut().enumerate() {
            *word = word.wrapping_add(i as u64 ^ round);
        }
        sum = black_box(&words).iter().fold(sum, |acc, &word| acc.rotate_left(1) ^ word);
    }
    sum
}

/// Follows a permutation through 4 MiB: every load depends on the one before and
/// most go to another page.
fn memory_chase() -> u64 {
    const LEN: usize = 1 << 19;
    // A full-period linear congruence visits every index once.
    let next: Vec<u64> =
        (0..LEN as u64).map(|i| (i.wrapping_mul(1_664_525) + 1_013_904_223) % LEN as u64).collect();
    let (mut at, mut sum) = (0_u64, 0_u64);
    for _ in 0..black_box(2_000_000_u32) {
        at = next[at as usize];
        sum = sum.wrapping_add(at);
    }
    sum
}
