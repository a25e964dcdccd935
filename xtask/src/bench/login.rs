//! The boot of an installed Debian 12 to its login prompt, with systemd and its services.
//!
//! Of Cloister alone: the image's initramfs finds disks behind virtio-mmio, and those of QEMU's PC are
//! behind PCI.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::median;
use crate::console::Session;
use crate::debian::{self, Debian};
use crate::machine::Machine;
use crate::{process, repository};

/// On a host that has other things to do.
const LIMIT: Duration = Duration::from_secs(600);

/// Boots `repeat` times, and prints the median.
///
/// # Errors
/// A machine that does not come to the prompt.
pub(super) fn run(cloister: &Machine, repeat: u32) -> Result<()> {
    let Machine::Cloister(program) = cloister else { bail!("the machine is not cloister") };
    let debian = Debian::get()?;
    let disk = repository::cache().join("bench-disk.img");
    process::step(&format!("Boot of Debian's disk to the login prompt, median of {repeat}"));
    let mut times = Vec::new();
    for _ in 0..repeat {
        // What the boot before wrote is not there.
        debian.copy(&disk, debian::SIZE)?;
        let mut command = Command::new(program);
        command.args(["run", "--memory", "1G", "--disk"]).arg(&disk);
        let start = Instant::now();
        let mut session = Session::start(&mut command, false)?;
        session.expect("cloister login: ", LIMIT)?;
        times.push(start.elapsed().as_secs_f64());
    }
    std::fs::remove_file(&disk).context("cannot remove the disk's copy")?;
    println!("    cloister: {:.2} s", median(times));
    Ok(())
}
