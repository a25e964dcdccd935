//! `cargo xtask stacks`: software for SGX by others, which the user has installed, in machines of ours.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::guest_tests::{Setup, gramine, pce, qvl, sdk};
use crate::image::{Contents, Image};
use crate::machine::Machine;
use crate::{process, testing};

/// Options of `cargo xtask stacks`.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Options {
    /// Folder that Gramine was installed to, such as /usr
    #[arg(long, value_name = "DIR")]
    gramine: Option<PathBuf>,
    /// Sample application of Intel's Quote Verification Library
    #[arg(long, value_name = "PROGRAM")]
    qvl: Option<PathBuf>,
    /// Folder with libsgx_pce_logic.so.1, the libraries that it loads, and Intel's signed enclave
    #[arg(long, value_name = "DIR")]
    pce: Option<PathBuf>,
    /// Folder that Intel's SDK was installed to, such as /opt/intel/sgxsdk, with samples built in hardware mode
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// A test with what it needs.
type Test = fn(&Setup, &Path) -> Result<()>;

/// Runs the tests of what the options name.
///
/// # Errors
/// Tests that failed, or what kept them from running.
pub(crate) fn run(options: &Options) -> Result<()> {
    let all: [(&str, &Option<PathBuf>, Test); 5] = [
        ("gramines_quote_is_accepted_under_its_root_alone", &options.gramine, gramine::quote),
        ("gramines_enclaves_of_one_root_talk_by_ra_tls", &options.gramine, gramine::ra_tls),
        ("intels_qvl_gives_each_quote_its_verdict", &options.qvl, qvl::verdicts),
        ("intels_pce_signs_with_the_certified_key", &options.pce, pce::signature),
        ("intels_samples_run_in_hardware_mode", &options.sdk, sdk::samples),
    ];
    let image = Image::get(Contents::Tests)?;
    let setup = Setup::new(Machine::build(testing::PROFILE)?, image, None, false)?;
    process::step("Software of others");
    let mut failed = 0;
    for (name, place, test) in all {
        let Some(place) = place else { continue };
        let start = Instant::now();
        let outcome = setup.of(name).and_then(|setup| test(&setup, place));
        failed += usize::from(outcome.is_err());
        testing::report(name, start, &outcome);
    }
    if failed > 0 {
        bail!("{failed} failed");
    }
    Ok(())
}
