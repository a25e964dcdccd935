//! The smallest Debian 12 that packages can be installed in, as a folder.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::root::{TIDY, write_settings};
use super::tools::Tools;
use crate::apt::Archive;
use crate::{process, repository};

/// As for the image, without what a machine needs.
const RECIPE: &str = r#"
ROOT=$WORK/root
export ROOT
DEBOOTSTRAP_DIR=$DEBOOTSTRAP_SCRIPTS "$DEBOOTSTRAP" --foreign --variant=minbase --merged-usr \
    --cache-dir="$PACKAGES" --arch=amd64 "$SUITE" "$ROOT" "$MIRROR"
$ENTER "$ROOT" /debootstrap/debootstrap --second-stage
"#;

/// The folder, which nobody writes to: a test gets a copy.
///
/// # Errors
/// Packages that cannot be fetched; debootstrap's own.
pub(crate) fn smallest(archive: &Archive) -> Result<PathBuf> {
    let folder = repository::cache().join("debian-smallest");
    let made = folder.join("root");
    if made.exists() {
        return Ok(made);
    }
    let tools = Tools::get(archive)?;
    process::step("Making a small Debian 12");
    let start = Instant::now();
    let (work, settings) = (folder.join("work"), folder.join("settings"));
    let packages = folder.join("packages");
    let _ = fs::remove_dir_all(&work);
    for directory in [&work, &settings, &packages] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    write_settings(&settings)?;
    let recipe = [RECIPE, TIDY].concat();
    let mut shell = tools.shell(&recipe, &settings);
    shell.env("PACKAGES", &packages).env("WORK", &work).env("SETTINGS", &settings);
    process::capture(&mut shell).context(
        "cannot make a Debian 12, for which the system's package sources must be in reach",
    )?;
    // Only what is whole has the name.
    fs::rename(work.join("root"), &made)?;
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    process::done(start);
    Ok(made)
}
