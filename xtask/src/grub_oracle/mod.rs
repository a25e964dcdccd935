//! `cargo xtask grub-oracle`: GNU GRUB 2.06 itself, Debian's, runs a generated corpus of scripts
//! under QEMU; what it says and boots is the table that the tests of `cloister-boot` go by.

mod corpus;
#[path = "../../../crates/boot/src/disk/grub/oracle/fixture.rs"]
mod fixture;
mod random;
#[path = "../../../crates/boot/src/disk/grub/oracle/table.rs"]
mod table;
#[path = "../../../crates/boot/src/testing.rs"]
#[expect(dead_code, unreachable_pub, reason = "public in cloister-boot, whose tests use all of it")]
mod testing;
mod transcript;
mod virtual_pc;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{process, repository};
use table::Case;
use virtual_pc::VirtualPc;

/// Where the table is.
const TABLE: &str = "crates/boot/src/disk/grub/oracle/table.txt";

/// Options of `cargo xtask grub-oracle`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write the table anew instead of comparing with it
    #[arg(long)]
    write: bool,
    /// Only scripts whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Show what GRUB writes
    #[arg(long)]
    show: bool,
    /// Machines at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    machines: u8,
}

/// Runs the corpus.
///
/// # Errors
/// Packages or programs that are missing; differences between GRUB and the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let all = corpus::cases();
    let only = options.only.as_deref().unwrap_or_default();
    let wanted: Vec<Case> = all.iter().filter(|case| case.name.contains(only)).cloned().collect();
    ensure!(!wanted.is_empty(), "no script of the corpus has {only:?} in its name");

    let start = Instant::now();
    let scratch = repository::cache().join("grub-oracle");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let pc = VirtualPc::get(&scratch)?;
    let image = fixture::image(&scratch, &testing::bzimage(fixture::CODE));
    process::step(&format!("{} scripts in GNU GRUB", wanted.len()));
    let found = outcomes(&pc, &image, &wanted, options)?;
    process::done(start);

    let path = repository::root().join(TABLE);
    if options.write {
        return write(&path, all, &found);
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    compare(&table::parse(&text), &found)
}

/// What GRUB makes of each script, in their order.
fn outcomes(pc: &VirtualPc, image: &[u8], cases: &[Case], options: &Options) -> Result<Vec<Case>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let machines: Vec<_> = (0..options.machines)
            .map(|number| {
                let (next, found) = (&next, &found);
                scope.spawn(move || -> Result<()> {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(index) else { return Ok(()) };
                        let mut disk = image.to_vec();
                        fixture::put_script(&mut disk, &case.script);
                        let text = pc.run(&format!("{number}"), &disk)?;
                        if options.show {
                            println!("{}{}\n{text}", table::CASE, case.name);
                        }
                        let outcome = transcript::outcome(&text);
                        let case = Case { outcome, ..case.clone() };
                        found.lock().expect("no machine panics").push((index, case));
                    }
                })
            })
            .collect();
        machines.into_iter().try_for_each(|machine| machine.join().expect("no machine panics"))
    })?;
    let mut found = found.into_inner().expect("no machine panics");
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, case)| case).collect())
}

/// Writes the table: scripts that were not run keep the outcome that they have in it.
fn write(path: &Path, mut all: Vec<Case>, found: &[Case]) -> Result<()> {
    let before = table::parse(&fs::read_to_string(path).unwrap_or_default());
    let mut text = String::new();
    for case in &mut all {
        let known = |known: &&Case| known.name == case.name && known.script == case.script;
        if let Some(known) = found.iter().find(known).or(before.iter().find(known)) {
            case.outcome.clone_from(&known.outcome);
        }
        let Case { name, script, outcome } = &case;
        let outcome = outcome.join("\n");
        writeln!(text, "{}{name}\n{script}{}\n{outcome}\n", table::CASE, table::OUTCOME)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} scripts are in {TABLE}", all.len());
    Ok(())
}

fn compare(table: &[Case], found: &[Case]) -> Result<()> {
    let mut differences = 0;
    for case in found {
        let expected = table.iter().find(|other| other.name == case.name);
        if expected == Some(case) {
            continue;
        }
        differences += 1;
        println!("{}: GRUB makes of it\n    {}", case.name, case.outcome.join("\n    "));
        match expected {
            Some(expected) if expected.script == case.script => {
                println!("and the table has\n    {}", expected.outcome.join("\n    "));
            }
            _ => println!("and the table does not have this script"),
        }
    }
    if differences > 0 {
        bail!("{differences} of {} scripts differ from {TABLE}; --write takes over", found.len());
    }
    println!("{} scripts, no difference from {TABLE}", found.len());
    Ok(())
}
