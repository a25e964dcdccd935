//! `cargo xtask lint`: the rules of the architecture, then formatting, clippy and
//! documentation. Each broken rule is one line.

mod option_names;
mod rules_table;
mod sdm_map;
mod virt_rules;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

use crate::{process, repository};

/// Options of `cargo xtask lint`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only the rules of the architecture, without cargo's own checks
    #[arg(long)]
    rules: bool,
}

/// Which crates of the workspace each crate may depend on, in any way.
const ARROWS: [(&str, &[&str]); 15] = [
    ("cloister-x86", &[]),
    ("cloister-float", &[]),
    ("cloister-sgx", &["cloister-x86"]),
    ("cloister-cpu", &["cloister-x86", "cloister-float", "cloister-sgx"]),
    ("cloister-jit", &["cloister-x86", "cloister-cpu", "cloister-float"]),
    ("cloister-virt", &["cloister-x86", "cloister-sgx"]),
    ("cloister-boot", &["cloister-x86"]),
    ("cloister-devices", &[]),
    ("cloister-epc-view", &[]),
    ("cloister-fs", &[]),
    ("cloister-attest", &["cloister-sgx"]),
    ("cloister-quoteverify", &["cloister-sgx", "cloister-attest"]),
    (
        "cloister-vmm",
        &[
            "cloister-x86",
            "cloister-sgx",
            "cloister-cpu",
            "cloister-jit",
            "cloister-virt",
            "cloister-boot",
            "cloister-devices",
            "cloister-epc-view",
            "cloister-fs",
            "cloister-attest",
        ],
    ),
    ("cloister-manual", &["cloister-vmm"]),
    (
        "xtask",
        &[
            "cloister-x86",
            "cloister-sgx",
            "cloister-cpu",
            "cloister-jit",
            "cloister-virt",
            "cloister-boot",
            "cloister-devices",
            "cloister-epc-view",
            "cloister-fs",
            "cloister-attest",
            "cloister-vmm",
        ],
    ),
];

/// Crates without a line of unsafe code.
const SAFE_CRATES: [&str; 9] = [
    "crates/x86",
    "crates/float",
    "crates/sgx",
    "crates/virt",
    "crates/boot",
    "crates/devices",
    "crates/epc-view",
    "crates/fs",
    "crates/attest",
];

/// Lines that no source file exceeds.
const MAX_LINES: usize = 900;

/// Names that say nothing about what a thing provides.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "manager", "base"];

/// The part of `cargo metadata` that the rules look at.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Present if the dependency is a folder of this repository.
    path: Option<PathBuf>,
}

/// Runs every rule.
///
/// # Errors
/// The number of rules that do not hold.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut broken = architecture()?;
    for line in &broken {
        eprintln!("lint: {line}");
    }
    if !options.rules {
        broken.extend(cargo_checks());
    }
    if broken.is_empty() {
        println!("==> No rule is broken");
        return Ok(());
    }
    bail!("{} rule(s) broken:\n  {}", broken.len(), broken.join("\n  "))
}

/// The rules that cargo knows nothing of.
fn architecture() -> Result<Vec<String>> {
    process::step(
        "Architecture: arrows, file sizes, names, options in errors, the maps of the SDM, \
         the rules of virtualization",
    );
    let text = process::capture(process::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--locked",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata's output")?;
    let mut broken = arrows(&metadata);
    let root = repository::root();
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "guest", "fuzz"] {
        sources(&root.join(folder), &mut files)?;
    }
    let options = option_names::Options::read(&root);
    broken.extend(options.check());
    for file in &files {
        let shown = file.strip_prefix(&root).unwrap_or(file);
        let text = fs::read_to_string(file)?;
        broken.extend(size(shown, &text));
        broken.extend(names(shown));
        broken.extend(options.judge(shown, &text));
    }
    for folder in SAFE_CRATES {
        let path = Path::new(folder).join("src/lib.rs");
        let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
        if !text.contains("#![forbid(unsafe_code)]") {
            broken.push(format!("{} must say #![forbid(unsafe_code)]", path.display()));
        }
    }
    broken.extend(sdm_map::check(&root)?);
    broken.extend(virt_rules::check(&root));
    Ok(broken)
}

/// Dependencies inside the workspace against [`ARROWS`].
fn arrows(metadata: &Metadata) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let Some(targets) = allowed.get(package.name.as_str()) else {
            broken.push(format!(
                "crate {} has no place among the arrows in xtask/src/lint.rs",
                package.name
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|one| one.path.is_some()) {
            if !targets.contains(&dependency.name.as_str()) {
                broken.push(format!(
                    "{} must not depend on {} (allowed: {})",
                    package.name,
                    dependency.name,
                    if targets.is_empty() { "nothing".to_owned() } else { targets.join(", ") }
                ));
            }
        }
    }
    broken
}

fn size(file: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES)
        .then(|| format!("{} has {lines} lines, more than {MAX_LINES}", file.display()))
}

/// File stems and folder names against [`EMPTY_NAMES`].
fn names(file: &Path) -> Option<String> {
    let bare = file.with_extension("");
    let name = bare
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .find(|part| EMPTY_NAMES.contains(&part.as_ref()))?;
    Some(format!("{}: the name {name} does not say what is in it", file.display()))
}

/// All Rust files below a folder, which may be missing.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Formatting, clippy and documentation of the workspace and of the guest programs.
fn cargo_checks() -> Vec<String> {
    let checks: [(&str, &[&str]); 6] = [
        ("cargo fmt", &["fmt", "--all", "--check"]),
        ("cargo fmt of fuzz/", &["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]),
        (
            "cargo fmt of guest/",
            &["fmt", "--all", "--check", "--manifest-path", "guest/Cargo.toml"],
        ),
        (
            "cargo clippy",
            &["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-Dwarnings"],
        ),
        (
            "cargo clippy of guest/",
            &[
                "clippy",
                "--quiet",
                // The enclave has no unwinder, and only this profile aborts.
                "--release",
                "--locked",
                "--workspace",
                "--manifest-path",
                "guest/Cargo.toml",
                "--",
                "-Dwarnings",
            ],
        ),
        ("cargo doc", &["doc", "--quiet", "--locked", "--workspace", "--no-deps"]),
    ];
    let mut broken = Vec::new();
    for (name, arguments) in checks {
        process::step(name);
        let start = Instant::now();
        let mut cargo = process::cargo();
        cargo.args(arguments).env("RUSTDOCFLAGS", "-Dwarnings");
        if arguments.contains(&"guest/Cargo.toml") && arguments[0] == "clippy" {
            cargo.env("CARGO_TARGET_DIR", repository::cache().join("guest-clippy"));
        }
        match process::show(&mut cargo) {
            Ok(()) => process::done(start),
            Err(_) => broken.push(format!("{name} found something (see above)")),
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Metadata, arrows, names, size};

    fn metadata(package: &str, dependency: &str) -> Metadata {
        let text = format!(
            r#"{{"packages": [{{"name": "{package}", "dependencies":
                [{{"name": "{dependency}", "path": "/x"}}, {{"name": "libc", "path": null}}]}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn an_arrow_of_the_design_is_allowed() {
        assert!(arrows(&metadata("cloister-virt", "cloister-sgx")).is_empty());
    }

    #[test]
    fn virt_may_not_know_a_processor() {
        let broken = arrows(&metadata("cloister-virt", "cloister-cpu"));

        assert_eq!(
            broken,
            ["cloister-virt must not depend on cloister-cpu (allowed: cloister-x86, cloister-sgx)"]
        );
    }

    #[test]
    fn nothing_may_depend_on_xtask() {
        assert_eq!(arrows(&metadata("cloister-vmm", "xtask")).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_named() {
        assert_eq!(arrows(&metadata("cloister-new", "cloister-x86")).len(), 1);
    }

    #[test]
    fn a_file_of_900_lines_passes_and_one_more_does_not() {
        let file = Path::new("a.rs");

        assert_eq!(size(file, &"x\n".repeat(900)), None);
        assert_eq!(size(file, &"x\n".repeat(901)).unwrap(), "a.rs has 901 lines, more than 900");
    }

    #[test]
    fn an_empty_name_is_found_in_folders_and_files() {
        assert!(names(Path::new("crates/x/src/util/a.rs")).is_some());
        assert!(names(Path::new("crates/x/src/helper.rs")).is_some());
        assert!(names(Path::new("crates/x/src/database.rs")).is_none());
    }
}
