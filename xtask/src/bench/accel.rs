//! The same guest by every accelerator that can be had here, and by Debian's QEMU under the same KVM.
//!
//! KVM is that of the host, where `auto` would take it, and that of a guest with VMX on software processors (L1), with SGX and
//! without. What runs in L1 runs on software processors, so its figures compare with each other.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::enclaves::Figures;
use super::programs::image::Image as Programs;
use super::programs::report::{Column, Trial, cell, check, mean};
use super::{best_of, median, parse};
use crate::image::Image;
use crate::machine::{Boot, Machine};
use crate::nested::{self, CPU, EPC, L2, MORE_MEMORY, Vmm};
use crate::process;

/// Pages of the guest's EPC, 64 MiB.
const PAGES: f64 = 16384.0;
/// RAM of a guest that runs programs, and of the L1 around it.
const PROGRAMS_MEMORY: &str = "1536M";
const PROGRAMS_L1_MEMORY: &str = "4G";
const LIMIT: Duration = Duration::from_secs(1800);

/// Where the guest runs.
#[derive(Clone, Copy)]
enum Place {
    /// On this host, by the accelerator of this name.
    Here(&'static str),
    /// In L1, by Cloister under KVM.
    InL1 { has_sgx: bool },
    /// In L1, by Debian's QEMU under KVM.
    ByQemu,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Here("soft") => "soft",
            Self::Here(_) => "kvm",
            Self::InL1 { has_sgx: true } => "L1 kvm",
            Self::InL1 { has_sgx: false } => "L1 trap",
            Self::ByQemu => "L1 qemu",
        }
    }
}

/// What a guest boots.
struct Guest<'a> {
    kernel: &'a Path,
    initrd: &'a Path,
    memory: &'static str,
    /// Of the L1 around it: with Cloister, and with QEMU where it has to run there.
    in_cloister: PathBuf,
    in_qemu: Option<PathBuf>,
    l1_memory: &'static str,
}

/// What a guest printed, with the time since its VMM's start.
type Lines = Vec<(String, Duration)>;

/// Measures everything and prints one table.
///
/// # Errors
/// Machines that do not boot, guests that measure nothing, programs that make something else.
pub(super) fn run(image: &Image, cloister: &Machine, repeat: u32) -> Result<()> {
    let Machine::Cloister(program) = cloister else { bail!("the machine is not cloister") };
    let programs = Programs::get()?;
    let (ours, theirs) = (Vmm::Cloister(program), Vmm::Qemu);
    let demo = Guest {
        kernel: &image.kernel,
        initrd: &image.initrd,
        memory: "512M",
        in_cloister: nested::initrd(&image.initrd, "accel-demo", ours)?,
        in_qemu: Some(nested::initrd(&image.initrd, "accel-demo-qemu", theirs)?),
        l1_memory: MORE_MEMORY,
    };
    let real = Guest {
        kernel: &programs.kernel,
        initrd: &programs.initrd,
        memory: PROGRAMS_MEMORY,
        in_cloister: nested::initrd(&programs.initrd, "accel-programs", ours)?,
        in_qemu: None,
        l1_memory: PROGRAMS_L1_MEMORY,
    };
    let places = places(program)?;
    process::step(&format!("Accelerators, best or median of {repeat}"));
    let table = Table::new(places.iter().map(|place| place.name()).collect());
    let bench = Bench { cloister, repeat };

    let starts = |prealloc| each(&places, |place| bench.start(place, &demo, prealloc).map(Some));
    let (lazy, whole) = (starts("off")?, starts("on")?);
    table.row("start to init, s", 2, &lazy);
    table.row("the same with prealloc, s", 2, &whole);
    let first = lazy
        .iter()
        .zip(&whole)
        .map(|(lazy, whole)| Some((whole.as_ref()? - lazy.as_ref()?) * 1e9 / PAGES));
    table.row("first touch of an EPC page, ns", 0, &first.collect::<Vec<_>>());

    let figures = each(&places, |place| bench.figures(place, &demo))?;
    let row = |figure: fn(&Figures) -> f64| {
        figures.iter().map(|all| Some(figure(all))).collect::<Vec<_>>()
    };
    table.row("EENTER+EEXIT, ns", 0, &row(|all| all.entry));
    table.row("AEX+ERESUME and the kernel, ns", 0, &row(|all| all.aex));
    table.row("hashes in an enclave to outside", 2, &row(|all| all.inside / all.outside));

    // Programs have no enclave, so that the two of L1's KVM are alike, and QEMU's with them.
    let mut columns = Vec::new();
    for &place in places.iter().filter(|place| !matches!(place, Place::ByQemu)) {
        let mut column = Column::default();
        for _ in 0..repeat {
            column.add(&bench.programs(place, &real)?);
        }
        columns.push((place.name(), column));
    }
    table.programs(&columns);
    check(&columns.iter().map(|(name, column)| (*name, column)).collect::<Vec<_>>())
}

/// The places that there are: KVM of the host where it serves machines well.
fn places(program: &Path) -> Result<Vec<Place>> {
    let info = process::capture(Command::new(program).arg("info"))?;
    let chosen = info.lines().find_map(|line| line.strip_prefix("Automatic choice"));
    let here = chosen.is_some_and(|chosen| chosen.trim_start().starts_with("kvm"));
    let mut places = vec![Place::Here("soft")];
    places.extend(here.then_some(Place::Here("kvm")));
    places.extend([Place::InL1 { has_sgx: true }, Place::ByQemu, Place::InL1 { has_sgx: false }]);
    Ok(places)
}

/// What is measured in each place.
fn each<T>(places: &[Place], measure: impl Fn(Place) -> Result<T>) -> Result<Vec<T>> {
    places.iter().map(|&place| measure(place).with_context(|| place.name())).collect()
}

struct Bench<'a> {
    cloister: &'a Machine,
    repeat: u32,
}

impl Bench<'_> {
    /// Seconds from the VMM's start to the first line of the guest's init.
    fn start(&self, place: Place, guest: &Guest<'_>, prealloc: &str) -> Result<f64> {
        let times: Result<Vec<f64>> = (0..self.repeat)
            .map(|_| {
                let lines = self.lines(place, guest, "", prealloc)?;
                let up = lines.iter().find(|(line, _)| line.starts_with("init: up after"));
                Ok(up.context("the guest did not reach init")?.1.as_secs_f64())
            })
            .collect();
        Ok(median(times?))
    }

    /// What the guest measures of enclaves.
    fn figures(&self, place: Place, guest: &Guest<'_>) -> Result<Figures> {
        best_of(self.repeat, || {
            let lines = self.lines(place, guest, "enclave-demo:times", "on")?;
            let measured = parse(lines.iter().map(|(line, _)| line.as_str()));
            ensure!(!measured.is_empty(), "nothing was measured: {lines:?}");
            Ok(measured)
        })
        .and_then(|best| Figures::of(&best))
    }

    /// The programs of Debian packages.
    fn programs(&self, place: Place, guest: &Guest<'_>) -> Result<Trial> {
        let lines = self.lines(place, guest, "programs", "off").with_context(|| place.name())?;
        let mut trial = Trial::default();
        lines.iter().for_each(|(line, since)| trial.line(line, *since));
        trial.end(lines.last().map_or("", |(line, _)| line));
        Ok(trial)
    }

    /// Has a guest with EPC do tasks.
    fn lines(&self, place: Place, guest: &Guest<'_>, tasks: &str, prealloc: &str) -> Result<Lines> {
        let boot = match place {
            Place::Here(accel) => {
                let append = format!("quiet cloister.run={tasks}");
                let epc = format!("{},prealloc={prealloc}", EPC.1);
                let boot = Boot::new(guest.kernel, guest.initrd, &append).option(EPC.0, &epc);
                Boot { memory: guest.memory.to_owned(), ..boot.option("--accel", accel) }
            }
            Place::InL1 { .. } | Place::ByQemu => {
                let (vmm, initrd) = match place {
                    Place::ByQemu => ("qemu", guest.in_qemu.as_ref()),
                    _ => ("cloister", Some(&guest.in_cloister)),
                };
                let initrd = initrd.context("the guest was not made for QEMU")?;
                let append = format!(
                    "quiet cloister.run=modules,l2 l2.vmm={vmm} l2.run={tasks} l2.memory={} \
                     l2.prealloc={prealloc}",
                    guest.memory
                );
                let boot = Boot::new(guest.kernel, initrd, &append);
                let boot = Boot { memory: guest.l1_memory.to_owned(), ..boot };
                match place {
                    Place::InL1 { has_sgx: false } => boot.option(CPU.0, "host,+vmx"),
                    _ => boot.option(CPU.0, CPU.1).option(EPC.0, EPC.1),
                }
            }
        };
        let in_l1 = !matches!(place, Place::Here(_));
        let (mut begun, mut lines) = (Duration::ZERO, Vec::new());
        self.cloister.boot(&Boot { limit: LIMIT, ..boot }, |line, since| {
            match line.strip_prefix(L2) {
                Some(line) if in_l1 => lines.push((line.to_owned(), since - begun)),
                None if in_l1 && line == "init: begin l2" => begun = since,
                None if !in_l1 => lines.push((line.to_owned(), since)),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(lines)
    }
}

/// A column for each place.
struct Table {
    places: Vec<&'static str>,
}

impl Table {
    fn new(places: Vec<&'static str>) -> Self {
        let table = Self { places };
        let heads: String = table.places.iter().map(|name| format!("  {name:>10}")).collect();
        println!("    {:<33}{heads}", "");
        table
    }

    fn row(&self, name: &str, digits: usize, values: &[Option<f64>]) {
        let cells: String =
            values.iter().map(|&value| format!("  {}", cell(value, 10, digits))).collect();
        println!("    {name:<33}{cells}");
    }

    /// Milliseconds of each program, and the mean of the ratios to the first place.
    fn programs(&self, columns: &[(&'static str, Column)]) {
        let of =
            |place: &str| columns.iter().find(|(name, _)| *name == place).map(|(_, column)| column);
        let Some((_, first)) = columns.first() else { return };
        let mut ratios = vec![Vec::new(); self.places.len()];
        for (name, base) in first.figures() {
            let values: Vec<Option<f64>> = self
                .places
                .iter()
                .map(|place| {
                    Some(of(place)?.figures().find(|(other, _)| *other == name)?.1.as_secs_f64())
                })
                .collect();
            for (ratios, value) in ratios.iter_mut().zip(&values) {
                ratios.extend(value.map(|value| value / base.as_secs_f64()));
            }
            let milliseconds: Vec<_> =
                values.iter().map(|value| value.map(|value| value * 1e3)).collect();
            self.row(&format!("{name}, ms"), 0, &milliseconds);
        }
        self.row(
            "programs, to the first",
            2,
            &ratios.iter().map(|all| mean(all)).collect::<Vec<_>>(),
        );
    }
}
