//! The fuzz targets of attestation, with bytes from a fixed seed.

mod targets;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Runs `target` with `times` byte strings of up to five changes, and as many of anything.
fn run(target: fn(&[u8]), times: usize) {
    target(&[]);
    target(&[1]);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..times {
        for (choice, longest) in [(1, 16), (0, 600)] {
            let mut bytes = vec![0; 1 + random.next_u32() as usize % longest];
            random.fill_bytes(&mut bytes);
            bytes[0] = choice;
            target(&bytes);
        }
    }
}

#[test]
fn only_the_genuine_report_is_quoted() {
    run(targets::report, 500);
}

#[test]
fn only_quotes_with_the_genuine_signed_parts_are_accepted() {
    run(targets::quote, 300);
}

#[test]
fn only_the_genuine_report_is_quoted_at_the_aesm_socket() {
    run(targets::aesm, 500);
}

#[test]
fn answers_of_the_pccs_are_lines_and_a_body() {
    run(targets::pccs, 500);
}

#[test]
fn only_genuine_certificates_lead_to_a_verdict() {
    run(targets::certificates, 200);
}
