//! Builds the programs of `guest/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{process, repository};

/// The only target that needs no further installation; a name given explicitly
/// keeps the flags below away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Paths of the compiled programs.
pub(crate) struct Programs {
    pub(crate) init: PathBuf,
    pub(crate) enclave_demo: PathBuf,
    pub(crate) bench: PathBuf,
    pub(crate) exits: PathBuf,
    pub(crate) programs: PathBuf,
    pub(crate) posix: PathBuf,
    pub(crate) peer: PathBuf,
    pub(crate) files: PathBuf,
    /// The AESM socket of guests.
    pub(crate) aesmd: PathBuf,
    pub(crate) enclave: PathBuf,
}

impl Programs {
    /// Compiles what has changed.
    ///
    /// # Errors
    /// Cargo's own.
    pub(crate) fn build() -> Result<Self> {
        process::step("Building the guest programs");
        let programs = repository::cache().join("guest-programs");
        // Static, at a fixed address: the image has no dynamic loader.
        let mut cargo = build_command(&programs, "-C relocation-model=static");
        cargo.args(["-p", "guest-init", "-p", "guest-enclave-demo"]);
        cargo.args(["-p", "guest-bench", "-p", "guest-exits", "-p", "guest-programs"]);
        cargo.args([
            "-p",
            "guest-posix",
            "-p",
            "guest-peer",
            "-p",
            "guest-files",
            "-p",
            "guest-aesmd",
        ]);
        process::show(&mut cargo)?;

        let enclave = repository::cache().join("guest-enclave");
        let flags = flags_of_bare("pic", "guest/enclave/enclave.ld");
        process::show(build_command(&enclave, &flags).args(["-p", "guest-enclave"]))?;

        let path =
            |directory: &PathBuf, name: &str| directory.join(TARGET).join("release").join(name);
        Ok(Self {
            init: path(&programs, "guest-init"),
            enclave_demo: path(&programs, "guest-enclave-demo"),
            bench: path(&programs, "guest-bench"),
            exits: path(&programs, "guest-exits"),
            programs: path(&programs, "guest-programs"),
            posix: path(&programs, "guest-posix"),
            peer: path(&programs, "guest-peer"),
            files: path(&programs, "guest-files"),
            aesmd: path(&programs, "cloister-aesmd"),
            enclave: path(&enclave, "guest-enclave"),
        })
    }
}

/// The kernel that provokes the rules of SGX virtualization, `guest/rules`.
///
/// # Errors
/// Cargo's own.
pub(crate) fn rules() -> Result<PathBuf> {
    bare("guest-rules")
}

/// The kernel that runs random enclave programs, `guest/random`.
///
/// # Errors
/// Cargo's own.
pub(crate) fn random() -> Result<PathBuf> {
    bare("guest-random")
}

/// A program that is booted as a kernel.
fn bare(package: &str) -> Result<PathBuf> {
    let directory = repository::cache().join(package);
    let flags = flags_of_bare("static", "guest/bare/bare.ld");
    process::show(build_command(&directory, &flags).args(["-p", package]))?;
    Ok(directory.join(TARGET).join("release").join(package))
}

/// Flags for a program without a system under it, laid out by a linker script of the repository.
fn flags_of_bare(relocation: &str, script: &str) -> String {
    format!(
        "-C relocation-model={relocation} -C link-arg=-nostartfiles -C link-arg=-nostdlib \
         -C link-arg=-Wl,--build-id=none -C link-arg=-T{}",
        repository::root().join(script).display()
    )
}

fn build_command(target_directory: &std::path::Path, flags: &str) -> Command {
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--manifest-path")
        .arg(repository::root().join("guest/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory)
        .env("RUSTFLAGS", format!("-C target-feature=+crt-static {flags}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo
}
