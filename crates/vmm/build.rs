//! Builds PID 1 of the machines of `cloister exec`, which is a part of the program: a static program for
//! x86-64 Linux, from `guest/exec-init`; and notes what `--version` says of this build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Given explicitly, so that flags for it reach nothing that runs here.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest");
    for file in ["Cargo.toml", "Cargo.lock", "aesmd", "exec-init", "vsock"] {
        println!("cargo:rerun-if-changed={}", guest.join(file).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to"));
    let init = out.join("init");
    // Empty where it cannot be built: the program says then what is missing, when it is needed.
    let built = build(&guest, &out).unwrap_or_else(|why| {
        println!("cargo:warning=cloister exec will not work: {why}");
        Vec::new()
    });
    note_version(!built.is_empty());
    fs::write(init, built).expect("cargo's folder can be written");
}

/// Gives the crate CLOISTER_COMMIT, the commit that is built, and CLOISTER_FEATURES, what this build has (+) and
/// has not (-).
fn note_version(exec: bool) {
    let sign = |has: bool| if has { '+' } else { '-' };
    let translator = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|name| name == "x86_64");
    println!("cargo:rustc-env=CLOISTER_FEATURES={}translator {}exec", sign(translator), sign(exec));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let commit = commit(&root).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=CLOISTER_COMMIT={commit}");
}

/// The commit, with `-dirty` where a source differs from it. None outside a repository of this program's own.
fn commit(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // Written at each commit and each switch to another.
    println!(
        "cargo:rerun-if-changed={}",
        root.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?).display()
    );
    for entry in fs::read_dir(root.join("crates")).ok()?.flatten() {
        println!("cargo:rerun-if-changed={}", entry.path().join("src").display());
    }
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--", "Cargo.lock", "crates", "guest"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash}-dirty") })
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
