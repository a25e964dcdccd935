//! Data between two guests of Cloister, and between two of QEMU's translator, over the same kind of socket.

use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;
use std::{process::Command, thread};

use anyhow::{Context, Result, ensure};

use crate::apt::Archive;
use crate::console::{self, Transcript};
use crate::guest::Programs;
use crate::image::{self, Small};
use crate::kernel::{self, Kernel};
use crate::machine::{Boot, Machine};
use crate::{cpio, process};

/// What is sent each way.
const MIB: u64 = 1024;
/// Bytes of packets: both sides take more than Ethernet's, and there are no segments.
const MTUS: [u16; 2] = [1500, 65520];
const LIMIT: Duration = Duration::from_secs(900);
/// Drivers of both machines' devices.
const MODULES: [&str; 3] = ["virtio_mmio", "virtio_pci", "virtio_net"];

/// Sends each way, and prints how fast that was.
///
/// # Errors
/// Machines that do not boot, or lose their network.
pub(super) fn run(cloister: &Machine, qemu: &Machine) -> Result<()> {
    let image = image()?;
    process::step(&format!("{MIB} MiB each way between two guests, MiB/s"));
    println!("    MTU    cloister     qemu tcg     ratio");
    for mtu in MTUS {
        let (ours, theirs) = (pair(cloister, &image, mtu)?, pair(qemu, &image, mtu)?);
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            println!("    {mtu:<5}  {ours:8.1}     {theirs:8.1}  {:8.2}", ours / theirs);
        }
    }
    Ok(())
}

fn image() -> Result<Small> {
    let archive = Archive::open()?;
    let kernel = Kernel::get(&archive, &kernel::STOCK)?;
    let mut root = cpio::Archive::with_console();
    root.file("init", 0o755, process::read(&Programs::build()?.init)?);
    image::add_mount_points(&mut root);
    image::add_shell(&mut root, &archive)?;
    image::add_modules(&mut root, &archive, &kernel, &MODULES)?;
    Small::new(&archive, &kernel::STOCK, &root, "net", Vec::new())
}

/// MiB a second, from the first guest to the second and back.
fn pair(machine: &Machine, image: &Small, mtu: u16) -> Result<[f64; 2]> {
    let name = format!("cloister-bench-{}.sock", std::process::id());
    let socket = std::env::temp_dir().join(name);
    let socket =
        socket.to_str().context("the folder for temporary files has a name that is not text")?;
    let boot = |own: u8, peer: u8| -> Result<Transcript> {
        let task = format!("net:10.9.0.{own}:10.9.0.{peer}:{MIB}:plain");
        let append = format!("quiet cloister.run=modules,{task}");
        let boot = Boot::new(&image.kernel, &image.initrd, &append);
        let mut command = machine.command(&boot);
        connect(&mut command, machine, socket, own, mtu);
        console::run(&mut command, LIMIT, |_, _| ControlFlow::Continue(()))
    };
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| boot(1, 2));
        let second = process::await_socket(socket).and_then(|()| boot(2, 1));
        (first.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), second)
    });
    // QEMU leaves it there.
    let _ = fs::remove_file(socket);
    Ok([received(&second?)?, received(&first?)?])
}

/// Puts a guest on the network; the first one makes the socket.
fn connect(command: &mut Command, machine: &Machine, socket: &str, own: u8, mtu: u16) {
    let server = own == 1;
    match machine {
        Machine::Cloister(_) => {
            let server = if server { ",server=on" } else { "" };
            command.arg("--net").arg(format!("stream={socket}{server},mtu={mtu}"));
        }
        Machine::Qemu(_) => {
            let server = if server { "on" } else { "off" };
            let backend = format!("stream,id=n,addr.type=unix,addr.path={socket},server={server}");
            let device =
                format!("virtio-net-pci,netdev=n,host_mtu={mtu},mac=52:54:00:00:00:0{own}");
            command.args(["-netdev", &backend, "-device", &device]);
        }
    }
}

/// How fast the guest had what it was sent.
fn received(transcript: &Transcript) -> Result<f64> {
    let line = transcript.find("net: had ");
    let line = line.with_context(|| format!("nothing arrived:\n{}", transcript.tail()))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let time: f64 = words.get(5).and_then(|time| time.parse().ok()).context("no time")?;
    ensure!(time > 0.0, "no time has gone by: {line}");
    Ok(MIB as f64 / (time / 1000.0))
}
