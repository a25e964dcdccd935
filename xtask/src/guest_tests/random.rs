//! Random enclave programs, which come to the same wherever they run, and the hammer, which no machine minds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::nested::SUBJECTS;
use super::setup::expect;
use crate::console::Transcript;
use crate::machine::Boot;
use crate::nested::{self, CPU, EPC, L2, Random};

/// Programs of the ordinary test, and with `--all`.
const PROGRAMS: u32 = 50;
const MANY_PROGRAMS: u32 = 10_000;
/// What the digest of a program comes behind.
const MARK: &str = "random: program ";
/// How long the hammer goes, in seconds, and with `--all`.
const SECONDS: u32 = 5;
const MANY_SECONDS: u32 = 1800;
/// Processors that the hammer is on.
const PROCESSORS: u32 = 2;
/// EPC of an L2 under the hammer whose leaves are trapped: all of its pages are looked at in the end.
const LITTLE_EPC: &str = "2M";

pub(super) fn programs(setup: &Setup) -> Result<()> {
    agree(setup, PROGRAMS)
}

pub(super) fn many_programs(setup: &Setup) -> Result<()> {
    agree(setup, MANY_PROGRAMS)
}

pub(super) fn hammer(setup: &Setup) -> Result<()> {
    let random = Random::get(setup.program()?)?;
    let append = format!("cloister.run={}", task(SECONDS)?);
    let boot = Boot::new(&random.program, &random.sigstruct, &append).option("--cpu", CPU.1);
    let transcript = setup.boot(&Boot { cpus: PROCESSORS, ..boot }.option(EPC.0, EPC.1))?;
    nothing_is_lost(&transcript)
}

/// By KVM with L1's SGX. The next machine gets all of L1's EPC.
pub(super) fn hammer_under_kvm(setup: &Setup) -> Result<()> {
    hammer_under_l1(setup, SECONDS, true)
}

pub(super) fn hammer_in_trap_mode(setup: &Setup) -> Result<()> {
    hammer_under_l1(setup, SECONDS, false)
}

pub(super) fn long_hammer_under_kvm(setup: &Setup) -> Result<()> {
    hammer_under_l1(setup, MANY_SECONDS, true)
}

pub(super) fn long_hammer_in_trap_mode(setup: &Setup) -> Result<()> {
    hammer_under_l1(setup, MANY_SECONDS, false)
}

fn hammer_under_l1(setup: &Setup, seconds: u32, sgx: bool) -> Result<()> {
    let random = Random::get(setup.program()?)?;
    let l2 = if sgx { "l2,l2".to_owned() } else { format!("busybox:env:EPC={LITTLE_EPC}:l2") };
    let limit = Duration::from_secs(600 + 3 * u64::from(seconds));
    let boot = l1(&random, &format!("{l2},dmesg"), &task(seconds)?, sgx);
    let transcript = setup.boot_to_power_off(&Boot { cpus: PROCESSORS, limit, ..boot })?;

    nothing_is_lost(&transcript)?;
    expect(&transcript, "init: end l2 2")
        .or_else(|_| expect(&transcript, "init: end busybox 2"))?;
    for line in transcript.marked("dmesg: ") {
        let (level, text) = line.split_once(' ').context("a line without a level")?;
        // Linux's levels: 4 is a warning, lower is worse.
        let ours = level <= "4" && SUBJECTS.iter().any(|subject| text.contains(subject));
        let bad = ours || ["WARNING:", "BUG:", "Oops"].iter().any(|word| text.contains(word));
        ensure!(!bad, "L1's kernel complains: {text}");
    }
    Ok(())
}

/// What the guest is told.
fn task(seconds: u32) -> Result<String> {
    Ok(format!("hammer:{}:{seconds}", seed()?))
}

fn nothing_is_lost(transcript: &Transcript) -> Result<()> {
    let lines = transcript.lines.iter().filter(|line| line.contains("random: hammer: "));
    let ends: Vec<_> = lines.filter(|line| line.contains(" pages of EPC ")).collect();
    let well = ends.iter().all(|line| line.ends_with("pages of EPC are there"));
    ensure!(!ends.is_empty() && well, "{ends:?}; last lines:\n{}", transcript.tail());
    Ok(())
}

/// CLOISTER_RANDOM_SEED, or else always the same.
fn seed() -> Result<u32> {
    match std::env::var("CLOISTER_RANDOM_SEED") {
        Ok(seed) => seed.parse().context("CLOISTER_RANDOM_SEED is a number"),
        Err(_) => Ok(1),
    }
}

/// L1 without SGX or with it, whose L2 does a task by the `cloister` there.
fn l1(random: &Random, tasks: &str, task: &str, sgx: bool) -> Boot {
    let append = format!(
        "quiet cloister.run=modules,{tasks} l2.vmm=cloister l2.cpus={PROCESSORS} l2.run={task}"
    );
    let boot = Boot::new(&random.l1.kernel, &random.l1.initrd, &append);
    let boot = Boot { memory: nested::MORE_MEMORY.to_owned(), ..boot };
    if sgx {
        boot.option("--cpu", CPU.1).option(EPC.0, EPC.1)
    } else {
        boot.option("--cpu", "host,+vmx")
    }
}

/// The same digests by software processors and, in L1, by KVM without SGX. The seed is in the failure's text.
fn agree(setup: &Setup, count: u32) -> Result<()> {
    let seed = seed()?;
    let limit = Duration::from_secs(300 + 2 * u64::from(count));
    let random = Random::get(setup.program()?)?;
    let task = format!("programs:{seed}:0:{count}");
    let here = Boot::new(&random.program, &random.sigstruct, &format!("cloister.run={task}"));
    // A triple fault ends it.
    // As in L1: what has VMX says so in IA32_FEATURE_CONTROL, which programs read.
    let cpu = "host,+sgx-provisionkey";
    let here = setup.boot(&Boot { limit, ..here }.option(EPC.0, EPC.1).option("--cpu", cpu))?;
    let l1 = Boot { limit, ..l1(&random, "l2", &task, false) };
    let there = setup.boot_to_power_off(&l1)?;

    let (digests, others) = (here.marked(MARK), there.marked(&format!("{L2}{MARK}")));
    for (place, lines, transcript) in [("here", &digests, &here), ("in L1", &others, &there)] {
        ensure!(
            lines.len() == count as usize,
            "{} of {count} programs of seed {seed} ended {place}; last lines:\n{}",
            lines.len(),
            transcript.tail()
        );
    }
    let differ: Vec<_> = digests.iter().zip(&others).filter(|(one, other)| one != other).collect();
    ensure!(
        differ.is_empty(),
        "seed {seed}: {} of {count} programs have other digests in L1: {:?}",
        differ.len(),
        &differ[..differ.len().min(20)]
    );
    Ok(())
}
