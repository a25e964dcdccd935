//! Real programs in a guest of Cloister, in one of QEMU's translator, and on this machine.

pub(super) mod image;
pub(super) mod report;

use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::console::{self, Transcript};
use crate::machine::{Boot, Machine};
use crate::process;
use image::Image;
use report::{Table, Trial};

/// For all programs in one guest.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs the programs `repeat` times everywhere, in turns, and prints the best of each.
///
/// # Errors
/// A machine that does not boot; at the end, programs that failed, made something else, or ran by a
/// clock that is not the host's.
pub(super) fn run(cloister: &Machine, qemu: &Machine, repeat: u32) -> Result<()> {
    let image = Image::get()?;
    process::step(&format!("Programs of Debian packages, 1 vCPU, best of {repeat}"));
    let mut table = Table::default();
    // In turns, so that a change of the machine's load meets all.
    for _ in 0..repeat {
        table.cloister.add(&in_guest(cloister, &image)?);
        table.qemu.add(&in_guest(qemu, &image)?);
        table.native.add(&measure(&mut image.native())?);
    }
    table.print();
    table.check()
}

fn in_guest(machine: &Machine, image: &Image) -> Result<Trial> {
    // The kernel tries whether its timer works for so short a time that it is wrong on a busy host.
    let append = "quiet no_timer_check panic=-1 cloister.run=programs";
    let mut boot = Boot::new(&image.kernel, &image.initrd, append);
    boot.memory = "1536M".to_owned();
    measure(&mut machine.command(&boot))
}

/// What the runner's lines say, with the host's time between them.
fn measure(command: &mut Command) -> Result<Trial> {
    let mut trial = Trial::default();
    let transcript: Transcript = console::run(command, LIMIT, |line, since| {
        trial.line(line, since);
        ControlFlow::Continue(())
    })?;
    trial.end(&transcript.tail());
    Ok(trial)
}
