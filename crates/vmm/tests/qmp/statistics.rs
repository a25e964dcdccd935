//! What the monitor says of processors and their translators.

use std::time::Instant;

use cloister_boot::testing;
use serde_json::Value;

use crate::client::Client;
use crate::guests::DOTS;
use crate::machine::{PATIENCE, Running};

/// Counts down for a while, prints a dot, and again: code of 64-bit mode.
const COUNTS: &[u8] = &[
    0xb9, 0x10, 0x27, 0x00, 0x00, // mov ecx, 10000
    0xff, 0xc9, // dec ecx
    0x75, 0xfc, // jne to dec
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, COM1
    0xb0, b'.', // mov al, '.'
    0xee, // out dx, al
    0xeb, 0xed, // jmp to the beginning
];

/// The kernel of it, whose entry in 64-bit mode is 512 bytes past its beginning.
fn kernel() -> Vec<u8> {
    testing::bzimage(&[&[0xf4; 0x200], COUNTS].concat())
}

/// The statistics of the first processor, once some have been published that are as `wanted`.
fn wait(client: &mut Client, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let stats = client.get("x-query-cpu-stats")[0].take();
        if wanted(&stats) {
            return stats;
        }
        assert!(start.elapsed() < PATIENCE, "{stats}");
    }
}

fn count(stats: &Value, name: &str) -> u64 {
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_loop_is_translated_and_soon_nearly_all_that_runs() {
    let running = Running::boot(&kernel(), &[]);
    let mut client = running.client();

    let stats = wait(&mut client, |stats| count(stats, "entries") > 1000);

    for made in ["blocks", "instructions", "guest-bytes", "code-bytes", "nanoseconds"] {
        assert!(count(&stats, made) > 0, "{stats}");
    }
    assert_eq!(count(&stats, "evictions"), 0);
    assert!(count(&stats, "interpreted-runs") < count(&stats, "entries"), "{stats}");
}

#[test]
fn without_a_translator_everything_is_interpreted() {
    let running = Running::boot(&kernel(), &["--translate", "off"]);
    let mut client = running.client();

    let stats = wait(&mut client, |stats| count(stats, "interpreted-runs") > 10_000);

    assert_eq!((count(&stats, "blocks"), count(&stats, "entries")), (0, 0));
}

#[test]
fn each_processor_has_its_own_and_begins_anew_with_a_reset() {
    let running = Running::start(DOTS, &["--cpus", "2"]);
    let mut client = running.client();
    wait(&mut client, |stats| count(stats, "interpreted-runs") > 1000);

    client.get("stop");
    client.get("system_reset");
    wait(&mut client, |stats| count(stats, "interpreted-runs") == 0);
    let all = client.get("x-query-cpu-stats");

    let all = all.as_array().unwrap();
    let indices: Vec<u64> = all.iter().map(|stats| count(stats, "cpu-index")).collect();
    assert_eq!(indices, [0, 1]);
}
