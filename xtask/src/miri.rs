//! `cargo xtask miri`: unit tests in Miri, which finds undefined behaviour.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{process, repository};

/// Where Miri's component is: it exists for nightly toolchains alone.
const TOOLCHAIN: &str = "nightly";

/// A crate and the tests of it that Miri runs.
struct Tests {
    package: &'static str,
    /// Cargo's words for the targets.
    targets: &'static [&'static str],
    /// Beginnings of the tests' names; none: all.
    names: &'static [&'static str],
}

/// What Miri runs. It knows no assembly and few calls of the host, and executes a thousandth as fast as
/// the host: tests against the host's own instructions, of several processors (membarrier(2)), with
/// RSA signatures and of long random sequences are left out.
const TESTS: [Tests; 5] = [
    Tests { package: "cloister-x86", targets: &["--lib"], names: &[] },
    Tests { package: "cloister-float", targets: &["--test", "arithmetic"], names: &["special::"] },
    Tests {
        package: "cloister-sgx",
        targets: &["--test", "model"],
        names: &["access::", "layouts::", "inspect::", "storage::"],
    },
    Tests {
        package: "cloister-virt",
        targets: &["--lib", "--test", "virt"],
        names: &["epc::", "cpuid::", "msr::", "pool::", "store::"],
    },
    Tests {
        package: "cloister-cpu",
        targets: &["--lib"],
        names: &["apic::", "exec::general::tests::transfer::", "exit::", "mem::"],
    },
];

/// Options of `cargo xtask miri`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this crate
    #[arg(long, value_name = "CRATE", value_parser = TESTS.map(|tests| tests.package))]
    only: Option<String>,
}

/// Runs the tests that Miri can run.
///
/// # Errors
/// Miri is not there, or a test fails or does what Rust leaves undefined.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !process::exists(&["rustup", "run", TOOLCHAIN, "cargo", "miri"]) {
        bail!(
            "Miri is not installed, and nothing was run; install it with: \
             rustup toolchain install {TOOLCHAIN} --component miri --component rust-src"
        );
    }
    for Tests { package, targets, names } in TESTS {
        if options.only.as_ref().is_some_and(|only| only != package) {
            continue;
        }
        process::step(&format!("Miri: {package}"));
        let start = Instant::now();
        // Not the cargo that started xtask, which is of another toolchain.
        let mut rustup = Command::new("rustup");
        rustup
            .current_dir(repository::root())
            .args(["run", TOOLCHAIN, "cargo", "miri", "test", "--locked", "--package", package])
            .args(targets)
            .arg("--")
            .args(names)
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
            // TLB entries hold addresses as numbers. Tests read the clock.
            .env("MIRIFLAGS", "-Zmiri-permissive-provenance -Zmiri-disable-isolation");
        process::show(&mut rustup)?;
        process::done(start);
    }
    Ok(())
}
