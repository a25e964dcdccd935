//! Guests whose code is translated early, and what else the translator is put through at length.

use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Setup;
use super::setup::{TRANSLATE, expect};
use crate::machine::Boot;
use crate::testing::test_at_length;

const BOOTS: u64 = 200;
const WILD_GUESTS: &str = "10000";
const PATCHING_SECONDS: &str = "600";

/// Four processors, all code from its second run on.
pub(super) fn always(setup: &Setup) -> Result<()> {
    boot(setup, "always", 4)
}

/// One boot after the other, each with another number of runs after which code is translated: few
/// mostly, and on one processor or two.
pub(super) fn random_heats(setup: &Setup) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for number in 0..BOOTS {
        let heat = 1 + (random.next_u32() >> (16 + random.next_u32() % 16));
        let cpus = 1 + random.next_u32() % 2;
        boot(setup, &heat.to_string(), cpus).with_context(|| {
            format!("boot {number} with --translate {heat}, {cpus} processor(s)")
        })?;
    }
    Ok(())
}

/// Boots to a program of threads that add to one counter, and to power-off.
fn boot(setup: &Setup, translate: &str, cpus: u32) -> Result<()> {
    let boot = Boot { cpus, ..setup.tasks("cpus").option(TRANSLATE, translate) };

    let transcript = setup.boot_to_power_off(&boot)?;

    expect(&transcript, "init: end cpus 0")
}

pub(super) fn wild_guests(_: &Setup) -> Result<()> {
    let at_length = [("CLOISTER_WILD_SEEDS", WILD_GUESTS), ("CLOISTER_WILD_TRANSLATE", "always")];
    test_at_length(["--package", "cloister-vmm", "--test", "wild_guest"], &at_length)
}

pub(super) fn patching(_: &Setup) -> Result<()> {
    let at_length = [("CLOISTER_PATCHING_SECONDS", PATCHING_SECONDS)];
    test_at_length(["--package", "cloister-jit", "--lib", "patching"], &at_length)
}
