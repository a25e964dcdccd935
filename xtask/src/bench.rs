//! `cargo xtask bench`: the same kernel, initramfs and programs in Cloister, under QEMU's translator
//! and, for the loops, on this machine itself; then the first output of `cloister exec`, data between
//! guests, guests with more enclave memory than EPC, the leaves of the SGX model, guests of guests, a guest by
//! each accelerator, and the host's EPC. Whatever the figures are, they are printed: how fast a host is, is not an error.

mod accel;
mod enclaves;
mod exec;
mod files;
mod leaves;
mod login;
mod nested;
mod net;
mod paging;
mod pool;
mod programs;

use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::image::{Contents, Image};
use crate::machine::{Boot, Machine, Qemu};
use crate::process;

/// Cloister's boot to init is to take at most this many times as long as the translator's.
const WANTED_BOOT_RATIO: f64 = 4.0;

/// The options of which one at most is given.
const ONE_PART: &str = "one part";

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the leaves of the SGX model
    #[arg(long, group = ONE_PART)]
    leaves: bool,
    /// Only the host's EPC
    #[arg(long, group = ONE_PART)]
    pool: bool,
    /// Only guests with more enclave memory than EPC
    #[arg(long, group = ONE_PART)]
    paging: bool,
    /// Only programs of Debian packages
    #[arg(long, group = ONE_PART)]
    programs: bool,
    /// Only enclaves as their guest sees them, after the leaves of the SGX model
    #[arg(long, group = ONE_PART)]
    enclaves: bool,
    /// Only boots
    #[arg(long, group = ONE_PART)]
    boots: bool,
    /// Only VM exits and boots of a guest's guest
    #[arg(long, group = ONE_PART)]
    nested: bool,
    /// Only a guest by each accelerator that can be had
    #[arg(long, group = ONE_PART)]
    accel: bool,
    /// Only `cloister exec`: the first output, and files of shared folders
    #[arg(long, group = ONE_PART)]
    exec: bool,
    /// Only data between two guests
    #[arg(long, group = ONE_PART)]
    net: bool,
    /// Boots of each machine, of which the median counts, and runs of loops and programs, of which
    /// the best does
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
}

/// Runs everything and prints tables.
///
/// # Errors
/// Machines that do not boot, or loops that compute something else.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.leaves {
        return leaves::run().map(drop);
    }
    if options.pool {
        return pool::run();
    }
    let image = Image::get(Contents::Demo)?;
    let cloister = Machine::build("release")?;
    if options.paging {
        return paging::run(&image, &cloister);
    }
    if options.enclaves {
        return enclaves::run(&image, &cloister, leaves::run()?, options.repeat);
    }
    if options.nested {
        return nested::run(&image, &cloister, options.repeat);
    }
    if options.accel {
        return accel::run(&image, &cloister, options.repeat);
    }
    let qemu = Machine::Qemu(Qemu::get()?);
    if options.exec {
        return exec::run(&image, &cloister, &qemu, options.repeat);
    }
    if options.net {
        return net::run(&cloister, &qemu);
    }
    if options.programs {
        return programs::run(&cloister, &qemu, options.repeat);
    }

    let ratio = boots(&image, &cloister, &qemu, options.repeat)?;
    login::run(&cloister, options.repeat)?;
    if options.boots {
        return Ok(());
    }
    loops(&image, &cloister, &qemu, options.repeat)?;
    programs::run(&cloister, &qemu, options.repeat)?;
    exec::run(&image, &cloister, &qemu, options.repeat)?;
    net::run(&cloister, &qemu)?;
    paging::run(&image, &cloister)?;
    pool::start(&image, &cloister)?;
    enclaves::run(&image, &cloister, leaves::run()?, options.repeat)?;
    nested::run(&image, &cloister, options.repeat)?;
    accel::run(&image, &cloister, options.repeat)?;
    pool::run()?;
    println!("boot-to-init ratio with 1 vCPU: {ratio:.2} (wanted: at most {WANTED_BOOT_RATIO})");
    Ok(())
}

/// Boots with 1 and 4 vCPUs, and with 1 whose kernel prints little; returns the ratio with 1.
fn boots(image: &Image, cloister: &Machine, qemu: &Machine, repeat: u32) -> Result<f64> {
    process::step(&format!("Boot to init, median of {repeat}"));
    println!("    vCPUs  option  cloister s  qemu tcg s  ratio");
    let mut first = None;
    for (cpus, append) in [(1, ""), (4, ""), (1, "quiet")] {
        let mut boot = Boot::new(&image.kernel, &image.initrd, append);
        boot.cpus = cpus;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // Alternating, so that a change of the machine's load meets both.
        for _ in 0..repeat {
            ours.push(boot_to_init(cloister, &boot)?);
            theirs.push(boot_to_init(qemu, &boot)?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = ours / theirs;
        println!("    {cpus:5}  {append:<6}  {ours:10.2}  {theirs:10.2}  {ratio:5.2}");
        first.get_or_insert(ratio);
    }
    first.context("nothing was booted")
}

/// Seconds from the machine's start to init's first line.
fn boot_to_init(machine: &Machine, boot: &Boot) -> Result<f64> {
    let mut reached = None;
    let transcript = machine.boot(boot, |line, since| {
        if line.contains("init: up after") {
            reached.get_or_insert(since);
        }
        ControlFlow::Continue(())
    })?;
    match reached {
        Some(time) => Ok(time.as_secs_f64()),
        None => bail!("the guest did not reach init; last lines:\n{}", transcript.tail()),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One loop of the bench program.
#[derive(Debug, PartialEq, Eq)]
struct Measured {
    name: String,
    nanoseconds: u64,
    checksum: String,
}

/// User-mode loops in both guests and natively.
fn loops(image: &Image, cloister: &Machine, qemu: &Machine, repeat: u32) -> Result<()> {
    process::step(&format!("User-mode loops, best of {repeat}"));
    let in_guest = |machine: &Machine| -> Result<Vec<Measured>> {
        let mut boot = Boot::new(&image.kernel, &image.initrd, "cloister.run=bench");
        boot.limit = Duration::from_secs(600);
        let transcript = machine.boot(&boot, |_, _| ControlFlow::Continue(()))?;
        let measured = parse(transcript.lines.iter().map(String::as_str));
        ensure!(!measured.is_empty(), "no loop was measured:\n{}", transcript.tail());
        Ok(measured)
    };
    let native = best_of(repeat, || {
        let native = process::capture(&mut Command::new(&image.bench))?;
        Ok(parse(native.lines()))
    })?;
    let ours = best_of(repeat, || in_guest(cloister))?;
    let theirs = best_of(repeat, || in_guest(qemu))?;
    println!("    loop           cloister ms  qemu tcg ms  native ms  to tcg  to native");
    for ((ours, theirs), native) in ours.iter().zip(&theirs).zip(&native) {
        ensure!(
            ours.checksum == native.checksum && theirs.checksum == native.checksum,
            "{}: cloister computed {}, QEMU {}, this machine {}",
            ours.name,
            ours.checksum,
            theirs.checksum,
            native.checksum
        );
        let ms = |one: &Measured| one.nanoseconds as f64 / 1e6;
        let ratio = |one: &Measured| ms(ours) / ms(one);
        println!(
            "    {:<13}  {:11.1}  {:11.1}  {:9.1}  {:6.2}  {:9.2}",
            ours.name,
            ms(ours),
            ms(theirs),
            ms(native),
            ratio(theirs),
            ratio(native)
        );
    }
    Ok(())
}

/// The shortest time of each that `measure` measures, which computes the same each time.
fn best_of(
    repeat: u32,
    mut measure: impl FnMut() -> Result<Vec<Measured>>,
) -> Result<Vec<Measured>> {
    let mut best = measure()?;
    for _ in 1..repeat {
        let more = measure()?;
        let name = |one: &Measured| (one.name.clone(), one.checksum.clone());
        ensure!(
            best.iter().map(name).eq(more.iter().map(name)),
            "runs computed {best:?} and {more:?}"
        );
        for (best, more) in best.iter_mut().zip(more) {
            best.nanoseconds = best.nanoseconds.min(more.nanoseconds);
        }
    }
    Ok(best)
}

/// Lines `bench NAME NANOSECONDS CHECKSUM`.
fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Measured> {
    lines
        .filter_map(|line| {
            let mut words = line.strip_prefix("bench ")?.split_whitespace();
            Some(Measured {
                name: words.next()?.to_owned(),
                nanoseconds: words.next()?.parse().ok()?,
                checksum: words.next()?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Measured, best_of, median, parse};

    #[test]
    fn bench_lines_are_read_among_others() {
        let lines = ["init: begin bench", "bench integer 1200 0x7f", "bench broken x 1"];

        let expected =
            Measured { name: "integer".to_owned(), nanoseconds: 1200, checksum: "0x7f".to_owned() };
        assert_eq!(parse(lines.into_iter()), [expected]);
    }

    #[test]
    fn the_best_of_runs_that_compute_the_same_counts() {
        let measure = |runs: &'static [(u64, &'static str)]| {
            let mut runs = runs.iter();
            best_of(2, move || {
                let &(nanoseconds, checksum) = runs.next().unwrap();
                Ok(parse([&*format!("bench loop {nanoseconds} {checksum}")].into_iter()))
            })
        };

        assert_eq!(measure(&[(7, "0x1"), (5, "0x1")]).unwrap()[0].nanoseconds, 5);
        assert!(measure(&[(7, "0x1"), (5, "0x2")]).is_err());
    }

    #[test]
    fn the_median_ignores_an_outlier() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
