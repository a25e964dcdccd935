//! `cargo xtask diff`: instruction semantics next to this machine's own processor.

use anyhow::{Result, ensure};
use clap::Args;

use crate::process;

/// Options of `cargo xtask diff`.
#[derive(Args)]
pub(crate) struct Options {
    /// Generated instructions to run on both sides
    #[arg(long, default_value_t = 1_300_000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// Generated blocks of instructions to run in all ways
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    /// Seed of the generator: the same seed makes the same cases
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only 64-, 32- or 16-bit code
    #[arg(long, value_name = "64|32|16", value_parser = ["64", "32", "16"])]
    bits: Option<String>,
    /// Only mnemonics that begin with this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs generated instructions natively, in the interpreter and translated, then blocks of them, and
/// compares all state. The report says how many cases each row of `docs/cpu.md` excused, and on which
/// processor; of blocks, how many looped, faulted, and stored to their own code.
///
/// # Errors
/// A case that differs, or a host that is not x86-64 Linux.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the oracle is this machine's processor: run this on x86-64 Linux"
    );
    process::step(&format!(
        "{} generated cases and {} blocks, seed {}",
        options.cases, options.blocks, options.seed
    ));
    let mut command = process::cargo();
    command
        .args(["test", "--profile", "checked", "--package", "cloister-jit", "--test", "diff"])
        .args(["--", "generated_instructions", "random_blocks", "--nocapture", "--test-threads=1"])
        .env("CLOISTER_DIFF_CASES", options.cases.to_string())
        .env("CLOISTER_DIFF_BLOCKS", options.blocks.to_string())
        .env("CLOISTER_DIFF_SEED", options.seed.to_string());
    if let Some(bits) = &options.bits {
        command.env("CLOISTER_DIFF_BITS", bits);
    }
    if let Some(only) = &options.only {
        command.env("CLOISTER_DIFF_ONLY", only);
    }
    process::show(&mut command)
}
