//! The fuzz targets, with bytes from a fixed seed.

use crate::choices::Choices;

/// Runs `target` with `times` byte strings.
fn run(target: fn(&[u8]), times: usize) {
    let mut choices = Choices::Seed(1);
    for _ in 0..times {
        let mut bytes = vec![0; choices.below(300)];
        for byte in &mut bytes {
            *byte = choices.below(256) as u8;
        }
        target(&bytes);
    }
}

#[test]
fn leaf_operands_break_no_invariant() {
    super::leaf_operands(&[]);
    run(super::leaf_operands, 300);
}

#[test]
fn spoiled_sigstructs_are_refused() {
    super::sigstruct(&[]);
    run(super::sigstruct, 300);
}

#[test]
fn spoiled_tokens_are_refused() {
    super::einittoken(&[]);
    run(super::einittoken, 2000);
}

#[test]
fn key_requests_give_the_keys_of_their_enclave_or_none() {
    super::keyrequest(&[]);
    run(super::keyrequest, 2000);
}
