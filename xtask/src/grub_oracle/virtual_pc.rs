//! QEMU with GNU GRUB as its "kernel".

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::transcript;
use crate::apt::Archive;
use crate::process;

/// Modules in GRUB's image: what is not in it cannot be loaded, as there is no folder for it.
const MODULES: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "part_msdos",
    "ext2",
    "fat",
    "normal",
    "configfile",
    "search",
    "search_fs_uuid",
    "search_fs_file",
    "search_label",
    "test",
    "echo",
    "serial",
    "terminal",
    "halt",
    "loadenv",
    "regexp",
    "probe",
    "cpuid",
    "eval",
    "true",
    "minicmd",
    "sleep",
    "ls",
    "cat",
    "read",
    "tr",
    "linux",
    "linux16",
    "boot",
    "extcmd",
    "keystatus",
];
/// Consoles go to the serial port before anything is said.
const EARLY: &str =
    "serial --unit=0 --speed=115200\nterminal_output serial\nterminal_input serial\n";
/// What GRUB waits with after an error, for ten seconds.
const PRESS: &str = "Press any key";
/// A script that takes longer does not come to an end.
const LIMIT: Duration = Duration::from_secs(120);

/// How to run GRUB.
pub(super) struct VirtualPc {
    qemu: Command,
    scratch: PathBuf,
}

impl VirtualPc {
    /// Fetches GRUB, and QEMU where it is not installed, and makes GRUB's image.
    ///
    /// # Errors
    /// Packages that cannot be fetched.
    pub(super) fn get(scratch: &Path) -> Result<Self> {
        let archive = Archive::open()?;
        let modules = archive.unpacked("grub-pc-bin")?.join("usr/lib/grub/i386-pc");
        let tools = archive.unpacked_with_dependencies("grub-common")?;
        let early = scratch.join("early.cfg");
        fs::write(&early, EARLY)?;
        let core = scratch.join("core.img");
        let mut command = Command::new(tools.join("usr/bin/grub-mkimage"));
        command.env("LD_LIBRARY_PATH", libraries(&tools));
        command.args(["-O", "i386-pc", "-p", "(hd0,gpt2)/boot/grub", "-d"]).arg(&modules);
        command.arg("-c").arg(&early).arg("-o").arg(&core).args(MODULES);
        process::capture(&mut command)?;
        // GRUB as a Linux kernel: QEMU starts it without a boot sector.
        let mut image = process::read(&modules.join("lnxboot.img"))?;
        image.extend(process::read(&core)?);
        fs::write(scratch.join("grub.lnx"), image)?;
        Ok(Self { qemu: qemu(&archive)?, scratch: scratch.to_owned() })
    }

    /// What GRUB writes with a disk of these bytes. `name` is that of the machine's file.
    ///
    /// # Errors
    /// QEMU cannot be run.
    pub(super) fn run(&self, name: &str, disk: &[u8]) -> Result<String> {
        let path = self.scratch.join(format!("{name}.img"));
        fs::write(&path, disk)?;
        let mut command = Command::new(self.qemu.get_program());
        let variables = self.qemu.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(variables).args(self.qemu.get_args());
        // Without a floppy drive and other devices that nobody asked for.
        command.args(["-nodefaults", "-accel", "tcg", "-display", "none", "-m", "128"]);
        command.args(["-serial", "stdio", "-monitor", "none", "-no-reboot"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        command.arg("-kernel").arg(self.scratch.join("grub.lnx"));
        command.arg("-drive").arg(format!("file={},format=raw", path.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run QEMU")?;
        let text = converse(&mut child);
        let _ = child.kill();
        child.wait()?;
        text
    }
}

/// Reads until nothing more comes, and presses a key where GRUB waits for one.
fn converse(child: &mut Child) -> Result<String> {
    let mut keyboard = child.stdin.take().context("QEMU has no standard input")?;
    let mut screen = child.stdout.take().context("QEMU has no standard output")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len) = screen.read(&mut bytes)
            && len > 0
            && sender.send(bytes[..len].to_vec()).is_ok()
        {}
    });
    let end = Instant::now() + LIMIT;
    let (mut all, mut text) = (Vec::new(), String::new());
    let mut pressed = 0;
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                // What comes may end within a character.
                all.extend(bytes);
                text = String::from_utf8_lossy(&all).into_owned();
            }
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return Ok(text),
        }
        if transcript::is_complete(&text) {
            return Ok(text);
        }
        let waits = text.matches(PRESS).count();
        if waits > pressed {
            pressed = waits;
            // GRUB empties what was typed before it waits.
            thread::sleep(Duration::from_millis(200));
            let _ = keyboard.write_all(b" ").and_then(|()| keyboard.flush());
        }
    }
}

/// The system's QEMU, or Debian's package unpacked.
fn qemu(archive: &Archive) -> Result<Command> {
    const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
    let installed = Path::new("/").join(PROGRAM);
    if installed.exists() {
        return Ok(Command::new(installed));
    }
    let root = archive.unpacked_with_dependencies("qemu-system-x86")?;
    let mut command = Command::new(root.join(PROGRAM));
    command.env("LD_LIBRARY_PATH", libraries(&root));
    command.arg("-L").arg(root.join("usr/share/qemu"));
    Ok(command)
}

/// Where the libraries of an unpacked package are.
fn libraries(root: &Path) -> String {
    let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib"];
    folders.map(|folder| root.join(folder).display().to_string()).join(":")
}
