//! `cargo xtask test`: the crates' own tests, then guests.

use std::sync::Mutex;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::guest_tests::{GuestTest, Setup, TESTS};
use crate::image::{Contents, Image};
use crate::machine::Machine;
use crate::{image, process};

/// The profile of everything under test: optimised, with overflow checks and
/// debug assertions.
pub(crate) const PROFILE: &str = "checked";

/// Options of `cargo xtask test`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Only tests in guests
    #[arg(long, conflicts_with = "units")]
    guests: bool,
    /// Only the crates' own tests
    #[arg(long)]
    units: bool,
    /// Only guest tests whose name contains this
    #[arg(long, value_name = "TEXT", conflicts_with = "units")]
    only: Option<String>,
    /// Guest tests too that take long, which CI leaves out
    #[arg(long, conflicts_with = "units")]
    all: bool,
    /// Have the code of the guests translated: on, off, always, or after a number of runs (guests that
    /// are told in QEMU's options have it on)
    #[arg(long, value_name = "WHEN", conflicts_with = "units")]
    translate: Option<String>,
    /// Show the guests' consoles, one guest at a time
    #[arg(long)]
    show: bool,
    /// Name the guest tests and run nothing
    #[arg(long)]
    list: bool,
}

/// Counts of one kind of test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

/// Runs the tests; the last line of the output is the summary alone.
///
/// # Errors
/// Tests that failed, or what kept them from running.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for test in TESTS {
            println!("{}{}", test.name, if test.long { " (only with --all)" } else { "" });
        }
        return Ok(());
    }
    let mut count = Count::default();
    let mut obstacle = None;
    // Beside the compiler: fetching waits for the network most of the time.
    let whole = options.only.is_none();
    let image = (!options.units).then(|| thread::spawn(move || images(whole)));
    if !options.guests && options.only.is_none() {
        match units() {
            Ok(units) => count = units,
            Err(error) => obstacle = Some(error),
        }
    }
    if let Some(image) = image {
        let image = image.join().unwrap_or_else(|_| bail!("fetching panicked (see above)"));
        match image.and_then(|image| guests(options, image)) {
            Ok(guests) => {
                count.passed += guests.passed;
                count.failed += guests.failed;
            }
            Err(error) => obstacle = Some(error),
        }
    }
    if let Some(error) = obstacle {
        eprintln!("error: {error:#}");
        count.failed += 1;
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 {
        // The summary stays the last line: no message follows it.
        std::process::exit(1);
    }
    Ok(())
}

/// The crates' own tests, by nextest if it is there.
fn units() -> Result<Count> {
    process::step("Tests of the crates");
    let start = Instant::now();
    let mut count = Count::default();
    let mut cargo = process::cargo();
    if process::exists(&["cargo", "nextest"]) {
        cargo.args(["nextest", "run", "--cargo-profile", PROFILE, "--no-tests=pass"]);
        cargo.args(["--no-fail-fast", "--status-level=fail", "--final-status-level=slow"]);
    } else {
        cargo.args(["test", "--quiet", "--no-fail-fast", "--all-targets", "--profile", PROFILE]);
    }
    add(&mut count, cargo.args(["--workspace", "--locked"]), "the crates' tests")?;
    // Neither of the two ways above runs the examples in documentation.
    let mut cargo = process::cargo();
    cargo.args(["test", "--quiet", "--no-fail-fast", "--doc", "--profile", PROFILE]);
    add(&mut count, cargo.args(["--workspace", "--locked"]), "the documentation's examples")?;
    process::done(start);
    Ok(count)
}

/// Runs a test of a crate at another length than usual, which variables say.
///
/// # Errors
/// It fails.
pub(crate) fn test_at_length(test: [&str; 4], length: &[(&str, &str)]) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--quiet", "--locked", "--profile", PROFILE]).args(test);
    process::capture(cargo.envs(length.iter().copied())).map(drop)
}

/// Runs a test command and adds what it reports.
fn add(count: &mut Count, command: &mut std::process::Command, what: &str) -> Result<()> {
    let (success, lines) = process::show_and_keep(command)?;
    let reported = tally(&lines);
    count.passed += reported.passed;
    count.failed += reported.failed;
    if !success && reported.failed == 0 {
        bail!("{what} could not be run (see above)");
    }
    Ok(())
}

/// Sums the summary lines of nextest (`Summary [ 1.2s] 9 tests run: 8 passed, 1 failed`)
/// and of cargo test (`test result: ok. 8 passed; 1 failed; ...`).
fn tally(lines: &[String]) -> Count {
    let mut count = Count::default();
    for line in lines {
        // A failed test's own output, which nextest shows indented, is not a summary.
        let summary =
            line.trim_start().starts_with("Summary [") || line.starts_with("test result:");
        if !summary {
            continue;
        }
        let words: Vec<&str> = line.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let number = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed" => count.passed += number,
                "failed" | "timed" => count.failed += number,
                _ => {}
            }
        }
    }
    count
}

/// What the guests boot. Of some tests alone, each gets what only it needs.
fn images(whole: bool) -> Result<Image> {
    if whole { image::everything() } else { Image::get(Contents::Tests) }
}

/// The tests in guests: as many at a time as the host has processors, then those that want it all.
fn guests(options: &Options, image: Image) -> Result<Count> {
    let wanted = options.only.as_deref().unwrap_or_default();
    let named: Vec<_> = TESTS.iter().filter(|test| test.name.contains(wanted)).collect();
    if named.is_empty() {
        bail!("no guest test's name contains {wanted}; --list names them");
    }
    let selected: Vec<_> = named.into_iter().filter(|test| options.all || !test.long).collect();
    if selected.is_empty() {
        bail!("the guest tests whose names contain {wanted} take long: add --all to run them");
    }
    // Tests of the command have just built it; alone it would be built with other features.
    let only_guests = options.guests || options.only.is_some();
    let machine = if only_guests { Machine::build(PROFILE)? } else { Machine::built(PROFILE)? };
    let setup = Setup::new(machine, image, options.translate.clone(), options.show)?;
    let jobs = if options.show { 1 } else { thread::available_parallelism()?.get() };
    process::step(&format!("{} tests in guests, {jobs} at a time", selected.len()));
    let (alone, together): (Vec<_>, Vec<_>) = selected.into_iter().partition(|test| test.alone);
    let mut count = Count::default();
    for (tests, jobs) in [(together, jobs), (alone, 1)] {
        let next = Mutex::new(tests.into_iter());
        let counts = thread::scope(|scope| {
            let work = || run_each(&setup, || next.lock().ok()?.next());
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for one in counts {
            let Ok(one) = one else { bail!("a test panicked (see above)") };
            count.passed += one.passed;
            count.failed += one.failed;
        }
    }
    Ok(count)
}

/// Runs the tests that `next` gives, until there are no more.
fn run_each<'a>(setup: &Setup, next: impl Fn() -> Option<&'a GuestTest>) -> Count {
    let mut count = Count::default();
    while let Some(test) = next() {
        let start = Instant::now();
        let outcome = setup.of(test.name).and_then(|setup| (test.body)(&setup));
        report(test.name, start, &outcome);
        match outcome {
            Ok(()) => count.passed += 1,
            Err(_) => count.failed += 1,
        }
    }
    count
}

/// Prints how a test that began at `start` has ended.
pub(crate) fn report(name: &str, start: Instant, outcome: &Result<()>) {
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => println!("    ok     {name} ({seconds:.1} s)"),
        Err(error) => println!("    FAILED {name} ({seconds:.1} s)\n{}", indent(error)),
    }
}

fn indent(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().map(|line| format!("           {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Count, tally};

    #[test]
    fn nextest_summaries_are_counted() {
        let line = "     Summary [   1.046s] 12 tests run: 10 passed, 2 failed, 1 skipped";

        assert_eq!(tally(&[line.to_owned()]), Count { passed: 10, failed: 2 });
    }

    #[test]
    fn cargo_test_results_add_up() {
        let line = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured";

        let count = tally(&[line.to_owned(), line.to_owned()]);

        assert_eq!(count, Count { passed: 6, failed: 2 });
    }

    #[test]
    fn other_lines_do_not_count() {
        assert_eq!(tally(&["9 passed".to_owned()]), Count::default());
        let shown = "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured";
        assert_eq!(tally(&[shown.to_owned()]), Count::default());
    }
}
