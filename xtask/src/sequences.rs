//! `cargo xtask sequences`: random sequences of SGX leaves against the model's invariants.

use anyhow::Result;
use clap::Args;

use crate::process;

/// Options of `cargo xtask sequences`.
#[derive(Args)]
pub(crate) struct Options {
    /// Leaves to execute one at a time, and as many by several processors at once
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    leaves: u64,
    /// Seed of the first sequence: the same seed makes the same sequences
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the sequences and shows how often each leaf ended in which way.
///
/// # Errors
/// An invariant that does not hold; the output names the seed.
pub(crate) fn run(options: &Options) -> Result<()> {
    process::step(&format!("2 x {} leaves, seed {}", options.leaves, options.seed));
    let mut command = process::cargo();
    command
        .args(["test", "--profile", "checked", "--package", "cloister-sgx", "--test", "model"])
        .args(["sequences::", "--", "--nocapture", "--test-threads=1"])
        .env("CLOISTER_SEQUENCES", options.leaves.to_string())
        .env("CLOISTER_SEQUENCES_SEED", options.seed.to_string());
    process::show(&mut command)
}
