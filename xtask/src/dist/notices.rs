//! The licences of what the command is linked with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// How the names of files with licences begin.
const NAMES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// Of the command: what it is linked with.
pub(super) const COMMAND: &str = "\
cloister is linked with the crates below, and with the standard library of Rust (MIT or Apache-2.0). PID 1 of
the machines of cloister exec, which is a part of the program, is linked statically with the GNU C Library
(LGPL-2.1-or-later); its source is guest/exec-init of Cloister's, and it can be built with another.
";

/// Of the program for guests.
pub(super) const AESMD: &str = "\
cloister-aesmd is linked with the crates below, with the standard library of Rust (MIT or Apache-2.0), and statically
with the GNU C Library (LGPL-2.1-or-later); its source is guest/aesmd of Cloister's, and it can be built with another.
";

/// The part of `cargo metadata` that is looked at.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
    /// None for a crate of this repository.
    source: Option<String>,
}

/// After an introduction, which crates the programs of workspaces' manifests are linked with, and the text of each
/// licence with the crates that come with it.
///
/// # Errors
/// Cargo's own.
pub(super) fn text(introduction: &str, programs: &[(&str, &str)]) -> Result<String> {
    let mut crates = BTreeSet::new();
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for &(manifest, package) in programs {
        let linked = linked(manifest, package)?;
        let arguments = ["metadata", "--format-version=1", "--locked", "--manifest-path", manifest];
        let metadata = process::capture(process::cargo().args(arguments))?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("cargo metadata's output")?;
        let is_linked = |package: &&Package| {
            let Package { name, version, .. } = package;
            package.source.is_some() && linked.contains(&format!("{name} v{version}"))
        };
        for package in metadata.packages.iter().filter(is_linked) {
            let name = format!("{} {}", package.name, package.version);
            for text in licences(package.manifest_path.parent().unwrap_or(Path::new("/")))? {
                texts.entry(text).or_default().insert(name.clone());
            }
            crates.insert(format!("{name}: {}", package.license.as_deref().unwrap_or("see below")));
        }
    }
    let mut text = introduction.to_owned();
    for line in crates {
        text += &format!("\n    {line}");
    }
    for (licence, crates) in texts {
        let crates: Vec<String> = crates.into_iter().collect();
        text += &format!("\n\n{}\n{}\n\n{}", "-".repeat(80), crates.join(", "), licence.trim_end());
    }
    Ok(text + "\n")
}

/// `NAME vVERSION` of all that is linked into a package's programs on this system.
fn linked(manifest: &str, package: &str) -> Result<BTreeSet<String>> {
    let tree = process::capture(process::cargo().args([
        "tree",
        "--locked",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
        "--manifest-path",
        manifest,
        "--package",
        package,
    ]))?;
    let name_and_version = |line: &str| {
        let mut words = line.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    Ok(tree.lines().filter_map(name_and_version).collect())
}

/// The texts of licences in a crate's folder.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    files.sort();
    files
        .iter()
        .map(|path| Ok(String::from_utf8_lossy(&process::read(path)?).into_owned()))
        .collect()
}
