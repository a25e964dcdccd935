//! What VM exits cost in a guest with guests of its own, and how long such a guest boots.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::{boot_to_init, median};
use crate::gdb::Debugger;
use crate::image::{Image, Small};
use crate::machine::{Boot, Machine};
use crate::nested::{self, CPU, EPC, L2, MEMORY};
use crate::{kernel, process};

/// Names of `guest/exits` with what exits and where it is handled.
const EXITS: [(&str, &str); 3] = [
    ("cpuid", "CPUID, in L1's kernel"),
    ("out", "OUT, in a small VMM"),
    ("touch", "first touch of a page"),
];
/// An exit that L1's kernel handles is to take at most so long.
const WANTED_NANOSECONDS: f64 = 1500.0;
/// L2's boot is to take at most this many times as long as the same boot of L1.
const WANTED_BOOT_RATIO: f64 = 2.5;
/// Where `guest/exits` has its guest's code, a page. Nothing else runs at these addresses.
const CODE: u64 = 0x1000;
const PAGE: u64 = 4096;
/// Exits before those whose instructions are counted: what KVM does the first time only is over.
const EXITS_BEFORE: u32 = 50;
/// Exits that are counted. Few are of an interrupt before L2's instruction, whose count is not theirs.
const COUNTED: usize = 9;

/// Runs everything and prints tables.
///
/// # Errors
/// Machines that do not boot, or programs that print nothing.
pub(super) fn run(image: &Image, cloister: &Machine, repeat: u32) -> Result<()> {
    exits(cloister, repeat)?;
    boots(image, cloister, repeat)
}

fn exits(cloister: &Machine, repeat: u32) -> Result<()> {
    process::step(&format!("VM exits of L2, median of {repeat}"));
    let image = nested::kvm(&kernel::STOCK, "kvm-6.1")?;
    let mut times: HashMap<&str, Vec<f64>> = HashMap::new();
    for _ in 0..repeat {
        let transcript = cloister.boot(&l1(&image, "exits"), |_, _| ControlFlow::Continue(()))?;
        for (name, _) in EXITS {
            let time = transcript.lines.iter().find_map(|line| parse(line, name));
            let time = time.with_context(|| format!("no {name} timed:\n{}", transcript.tail()))?;
            times.entry(name).or_default().push(time);
        }
    }
    println!("    exit                       ns  instructions of L1");
    for (name, meaning) in EXITS {
        let nanoseconds = median(times.remove(name).unwrap_or_default());
        let instructions = instructions(cloister, &l1(&image, &format!("exits:{name}")))?;
        println!("    {meaning:<21}  {nanoseconds:7.0}  {instructions:18.0}");
    }
    println!("    (wanted of one in L1's kernel: at most {WANTED_NANOSECONDS} ns)");
    Ok(())
}

/// L1 whose init loads KVM and does a task.
fn l1(image: &Small, task: &str) -> Boot {
    let append = format!("quiet cloister.run=modules,{task}");
    Boot::new(&image.kernel, &image.initrd, &append).option("--cpu", "host,+vmx")
}

/// How many instructions L1 runs from an exit of L2 to the entry after it, the median of some exits.
fn instructions(cloister: &Machine, boot: &Boot) -> Result<f64> {
    let socket = std::env::temp_dir().join(format!("cloister-exits-{}.sock", std::process::id()));
    let boot = boot.clone().option("--gdb", &format!("unix:{},wait=on", socket.display()));
    let count = || -> Result<f64> {
        let mut debugger = Debugger::connect(&socket)?;
        debugger.set_breakpoint(CODE)?;
        for _ in 0..EXITS_BEFORE {
            debugger.go_on()?;
        }
        let counts: Result<Vec<f64>> = (0..COUNTED).map(|_| steps_in_l1(&mut debugger)).collect();
        debugger.remove_breakpoint(CODE)?;
        Ok(median(counts?))
    };
    thread::scope(|scope| {
        // The machine goes on when the debugger leaves, and powers off.
        let counting = scope.spawn(count);
        cloister.boot(&boot, |_, _| ControlFlow::Continue(()))?;
        counting.join().map_err(|_| anyhow!("the debugger panicked"))?
    })
}

/// Counts from the next exit of L2 up to and with the entry. Interrupts wait while L1 is stepped through, so
/// that the entry may end in the exit of one, where the count began.
fn steps_in_l1(debugger: &mut Debugger) -> Result<f64> {
    debugger.go_on()?;
    let mut exit = CODE;
    while is_l2(exit) {
        debugger.step()?;
        exit = debugger.rip()?;
    }
    let mut count = 0_u32;
    loop {
        debugger.step()?;
        count += 1;
        let rip = debugger.rip()?;
        if rip == exit || is_l2(rip) {
            return Ok(count.into());
        }
    }
}

fn is_l2(rip: u64) -> bool {
    (CODE..CODE + PAGE).contains(&rip)
}

/// Nanoseconds of one exit, from `exit NAME NANOSECONDS`.
fn parse(line: &str, name: &str) -> Option<f64> {
    line.strip_prefix("exit ")?.strip_prefix(name)?.trim().parse().ok()
}

/// The same kernel and initramfs as L1 and as L2.
fn boots(image: &Image, cloister: &Machine, repeat: u32) -> Result<()> {
    process::step(&format!("Quiet boot to init as L1 and, by QEMU, as L2, median of {repeat}"));
    let initrd = nested::initrd(&image.initrd, "nested-demo", nested::Vmm::Qemu)?;
    let alone = Boot::new(&image.kernel, &image.initrd, "quiet");
    let both = Boot::new(&image.kernel, &initrd, "quiet cloister.run=modules,l2");
    let both = Boot { memory: MEMORY.to_owned(), ..both };
    let both = both.option(EPC.0, EPC.1).option(CPU.0, CPU.1);
    let (mut of_l1, mut of_l2) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        of_l1.push(boot_to_init(cloister, &alone)?);
        of_l2.push(l2_to_init(cloister, &both)?);
    }
    let (of_l1, of_l2) = (median(of_l1), median(of_l2));
    println!("    L1 {of_l1:.2} s, L2 {of_l2:.2} s from QEMU's start");
    let ratio = of_l2 / of_l1;
    println!("    ratio: {ratio:.2} (wanted: at most {WANTED_BOOT_RATIO})");
    Ok(())
}

/// Seconds from QEMU's start in L1 to the first line of L2's init.
fn l2_to_init(cloister: &Machine, boot: &Boot) -> Result<f64> {
    let (mut started, mut reached) = (None, None);
    let up = format!("{L2}init: up after");
    let transcript = cloister.boot(boot, |line, since| {
        if line == "init: begin l2" {
            started = Some(since);
        } else if line.starts_with(&up) {
            reached = Some(since);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let (Some(started), Some(reached)) = (started, reached) else {
        return Err(anyhow!("L2 did not reach init; last lines:\n{}", transcript.tail()));
    };
    Ok((reached - started).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_time_of_one_exit_is_read_by_its_name() {
        assert_eq!(parse("exit cpuid 1500", "cpuid"), Some(1500.0));
        assert_eq!(parse("exit out 1500", "cpuid"), None);
        assert_eq!(parse("init: begin exits", "cpuid"), None);
    }
}
