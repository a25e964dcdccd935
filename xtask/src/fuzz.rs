//! `cargo xtask fuzz`: the fuzz targets of the SGX model, of the machine monitor, of VMX, of the translator
//! and of attestation.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{process, repository};

/// The targets in `fuzz/fuzz_targets`, and how long an input of each may be.
const TARGETS: [(&str, u32); 20] = [
    ("leaf_operands", 4096),
    ("sigstruct", 64),
    ("einittoken", 64),
    ("keyrequest", 96),
    ("disk", 256),
    ("grub", 4096),
    ("boot_entries", 4096),
    ("kernel", 512),
    ("virtio", 4096),
    ("qcow2", 1024),
    ("vmdk", 1024),
    ("qemu_line", 1024),
    ("qmp", 2048),
    ("translator", 128),
    ("vmcs", 4096),
    ("report", 512),
    ("quote", 5120),
    ("aesm", 1024),
    ("pccs", 512),
    ("certificates", 2048),
];

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this target
    #[arg(value_parser = TARGETS.map(|(name, _)| name))]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Processes for each target
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
}

/// Runs fuzz targets, one after the other.
///
/// # Errors
/// cargo-fuzz is not installed, or a target found something.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !process::exists(&["cargo", "fuzz"]) {
        bail!("cargo-fuzz is not installed; install it with: cargo install cargo-fuzz --locked");
    }
    if !process::exists(&["c++"]) {
        bail!("libFuzzer needs a C++ compiler; install one with: apt-get install g++");
    }
    for (name, longest) in TARGETS {
        if options.target.as_ref().is_some_and(|target| target != name) {
            continue;
        }
        process::step(&format!("Fuzz target {name} for {} s", options.seconds));
        let start = Instant::now();
        let mut cargo = process::cargo();
        cargo
            .current_dir(repository::root())
            // The coverage that libFuzzer needs is an unstable option of a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--sanitizer", "none", name])
            .args(corpora(name)?)
            .arg("--")
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-max_len={longest}"))
            // What a machine's large tables leave in the heap, inputs that are kept part into pieces: 0.3 MiB each.
            .arg("-rss_limit_mb=8192")
            // Long inputs from the beginning: deep states need many decisions.
            .args(["-len_control=0", "-timeout=20"]);
        if options.jobs > 1 {
            cargo.arg(format!("-fork={}", options.jobs));
        }
        if let Err(error) = process::show(&mut cargo) {
            let artifacts = Path::new("fuzz/artifacts").join(name);
            bail!("{name} found something; the input is in {} ({error})", artifacts.display());
        }
        process::done(start);
    }
    Ok(())
}

/// The folders of a target's inputs: what libFuzzer found, and the seeds that some have.
fn corpora(name: &str) -> Result<Vec<PathBuf>> {
    let found = Path::new("fuzz/corpus").join(name);
    fs::create_dir_all(repository::root().join(&found))?;
    let seeds = Path::new("fuzz/seeds").join(name);
    let has_seeds = repository::root().join(&seeds).is_dir();
    Ok([Some(found), has_seeds.then_some(seeds)].into_iter().flatten().collect())
}
