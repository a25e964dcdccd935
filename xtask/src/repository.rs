//! Where things are in the source tree and under `target/`.

use std::path::PathBuf;

/// The root of the source tree.
pub(crate) fn root() -> PathBuf {
    // CARGO_MANIFEST_DIR is <root>/xtask.
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Cargo's target directory of the main workspace.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Everything that xtask downloads or makes, other than compiled crates.
pub(crate) fn cache() -> PathBuf {
    target().join("xtask")
}
