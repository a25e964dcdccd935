//! Builds PID 1 of the machines of `cloister exec`, which is a part of the program: a static program for
//! x86-64 Linux, from `guest/exec-init`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Given explicitly, so that flags for it reach nothing that runs here.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest");
    for file in ["Cargo.toml", "Cargo.lock", "exec-init"] {
        println!("cargo:rerun-if-changed={}", guest.join(file).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to"));
    let init = out.join("init");
    // Empty where it cannot be built: the program says then what is missing, when it is needed.
    let built = build(&guest, &out).unwrap_or_else(|why| {
        println!("cargo:warning=cloister exec will not work: {why}");
        Vec::new()
    });
    fs::write(init, built).expect("cargo's folder can be written");
}

/// The program's bytes, or why there are none.
fn build(guest: &Path, out: &Path) -> Result<Vec<u8>, String> {
    let folder = out.join("guest");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo does not say where it is")?);
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--package", "exec-init"])
        .args(["--target", TARGET])
        .arg("--manifest-path")
        .arg(guest.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    // What is said about the build of this crate, lints and sanitizers among it, is not for that one.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    let output = cargo.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| line.starts_with("error")).unwrap_or("it fails");
        return Err(format!(
            "its PID 1 cannot be built for {TARGET} with a static C library: {line}"
        ));
    }
    let program = folder.join(TARGET).join("release/exec-init");
    fs::read(program).map_err(|error| error.to_string())
}
