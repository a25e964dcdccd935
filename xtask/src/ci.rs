//! `cargo xtask ci`: what a change must pass.

use anyhow::Result;

use crate::{lint, testing};

/// Lint, then test; test's summary is the last line.
///
/// # Errors
/// The first of the two that fails.
pub(crate) fn run() -> Result<()> {
    lint::run(&lint::Options::default())?;
    testing::run(&testing::Options::default())
}
