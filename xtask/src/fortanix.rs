//! Fortanix EDP: its runner, compiled from its crates in a folder of its own, and an enclave for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::apt::Archive;
use crate::{enclave, process, repository};

const CRATE: &str = "fortanix-sgx-tools";
const VERSION: &str = "0.6.4";

/// Compiles `ftxsgx-runner`, unless that was done before.
///
/// # Errors
/// Crates or packages that cannot be fetched; cargo's own.
pub(crate) fn runner(archive: &Archive) -> Result<PathBuf> {
    let root = repository::cache().join("fortanix").join(VERSION);
    let runner = root.join("bin/ftxsgx-runner");
    if runner.exists() {
        return Ok(runner);
    }
    let protoc = protoc(archive, &root)?;
    let openssl = archive.unpacked("libssl-dev")?;
    let include = openssl.join("usr/include");
    process::step(&format!("Building {CRATE} {VERSION}"));
    let start = Instant::now();
    let mut cargo = process::cargo();
    cargo.args(["install", "--quiet", "--debug", "--locked", CRATE, "--version", VERSION]);
    cargo.arg("--root").arg(&root).arg("--target-dir").arg(root.join("target"));
    cargo
        .env("PATH", joined(&protoc)?)
        .env("OPENSSL_NO_PKG_CONFIG", "1")
        .env("OPENSSL_STATIC", "1");
    cargo.env("OPENSSL_LIB_DIR", openssl.join("usr/lib/x86_64-linux-gnu"));
    cargo.env("OPENSSL_INCLUDE_DIR", &include);
    // Debian has some of the headers in a folder of the architecture.
    cargo.env("C_INCLUDE_PATH", include.join("x86_64-linux-gnu"));
    process::capture(&mut cargo)?;
    process::done(start);
    Ok(runner)
}

/// A folder with `protoc`, which finds its libraries.
fn protoc(archive: &Archive, root: &Path) -> Result<PathBuf> {
    let package = archive.unpacked_with_dependencies("protobuf-compiler")?.canonicalize()?;
    let folder = root.join("protoc");
    fs::create_dir_all(&folder)?;
    let usr = package.join("usr").display().to_string();
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={usr}/lib/x86_64-linux-gnu exec {usr}/bin/protoc -I {usr}/include \"$@\"\n"
    );
    let program = folder.join("protoc");
    fs::write(&program, script)?;
    process::capture(Command::new("chmod").arg("755").arg(&program))?;
    Ok(folder)
}

/// `PATH` with a folder before the others.
fn joined(folder: &Path) -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&path));
    env::join_paths(folders).context("a folder's name has a colon")
}

/// Writes `hello.sgxs` and its signature `hello.sig`, of `guest/stacks/hello.S`, to a folder.
///
/// # Errors
/// gcc's own; the folder cannot be written.
pub(crate) fn hello(folder: &Path) -> Result<()> {
    let (root, program) = (repository::root().join("guest"), folder.join("hello.elf"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-T"]);
    gcc.arg(root.join("enclave/enclave.ld")).arg(root.join("stacks/hello.S"));
    process::capture(gcc.arg("-o").arg(&program))?;
    let signed = enclave::sign(&program)?;
    fs::write(folder.join("hello.sgxs"), signed.stream)?;
    fs::write(folder.join("hello.sig"), signed.sigstruct)?;
    Ok(())
}
