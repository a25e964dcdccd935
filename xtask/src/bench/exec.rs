//! From the start of `cloister exec` to its command's first output, on the host's root and on a disk, next to
//! QEMU's translator with the same kernel and disk, and to a boot of the kernel that goes no further than its
//! init.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{boot_to_init, median};
use crate::apt::Archive;
use crate::image::{self, Image, Small};
use crate::kernel::{self, Kernel};
use crate::machine::{Boot, EPC, Machine};
use crate::{cpio, process, repository};

/// The first output of a command is to take at most this many times as long as the bare boot.
const WANTED_RATIO: f64 = 1.5;
/// What the command says.
const WORD: &str = "begun";
const MEMORY: &str = "1G";
/// The kernel's command line of `cloister exec`.
const APPEND: &str = "loglevel=3 panic=-1";
/// Drivers of QEMU's disk.
const MODULES: [&str; 2] = ["virtio_pci", "virtio_blk"];
/// Does on QEMU's disk what PID 1 of `cloister exec` does on its own.
const INIT: &str = "#!/bin/sh
export PATH=/bin
for module in /modules/*; do busybox insmod $module; done
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t ext4 -o ro /dev/vda /root
busybox chroot /root /bin/sh -c 'echo begun'
busybox poweroff -f
";

/// Measures each in turn, and prints the medians.
///
/// # Errors
/// Machines that do not come so far.
pub(super) fn run(image: &Image, cloister: &Machine, qemu: &Machine, repeat: u32) -> Result<()> {
    let archive = Archive::open()?;
    let (disk, small) = (disk(&archive)?, initramfs(&archive)?);
    let bare = bare(&image.kernel, &image.initrd).option(EPC.0, EPC.1);
    let on_disk = Boot {
        options: vec!["-drive".to_owned(), drive(&disk)],
        ..self::bare(&small.kernel, &small.initrd)
    };
    let disk = disk.display().to_string();
    let mut times: [Vec<f64>; 4] = Default::default();
    // In turn, so that a change of the machine's load meets all.
    for _ in 0..repeat {
        times[0].push(boot_to_init(cloister, &bare)?);
        times[1].push(first_output(cloister, &image.kernel, &[])?);
        times[2].push(first_output(cloister, &image.kernel, &["--no-host", "--root", &disk])?);
        times[3].push(in_qemu(qemu, &on_disk)?);
    }
    let [bare, host, disk, theirs] = times.map(median);
    process::step(&format!("From the start to the first output, median of {repeat}"));
    println!("    what                                      s  to the bare boot  to qemu tcg");
    for (name, time) in [
        ("bare boot to init", bare),
        ("cloister exec", host),
        ("cloister exec --root IMAGE", disk),
        ("qemu tcg, root on the same image", theirs),
    ] {
        println!("    {name:<36} {time:6.2}  {:16.2}  {:11.2}", time / bare, time / theirs);
    }
    println!("    wanted: cloister exec at most {WANTED_RATIO} times the bare boot");
    super::files::run(cloister, &image.kernel, repeat)
}

fn bare(kernel: &Path, initrd: &Path) -> Boot {
    Boot { memory: MEMORY.to_owned(), ..Boot::new(kernel, initrd, APPEND) }
}

fn drive(disk: &Path) -> String {
    format!("file={},if=virtio,format=raw,snapshot=on", disk.display())
}

/// Seconds to the first byte that the command writes.
fn first_output(cloister: &Machine, kernel: &Path, options: &[&str]) -> Result<f64> {
    let Machine::Cloister(program) = cloister else { anyhow::bail!("no other has exec") };
    let mut exec = Command::new(program);
    exec.arg("exec").arg("--kernel").arg(kernel).args(options);
    exec.args(["--", "/bin/sh", "-c", &format!("echo {WORD}")]);
    // Below the root, which is not shared twice.
    exec.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = exec.spawn().context("cannot start cloister")?;
    let mut first = [0];
    let read = child.stdout.take().context("no output")?.read(&mut first);
    let time = start.elapsed();
    let status = child.wait()?;
    ensure!(read? == 1 && status.success(), "cloister exec ended with {status}");
    Ok(time.as_secs_f64())
}

/// Seconds to the same word on QEMU's console.
fn in_qemu(qemu: &Machine, boot: &Boot) -> Result<f64> {
    let mut command = qemu.command(boot);
    command.args(&boot.options);
    let mut reached = None;
    let transcript = crate::console::run(&mut command, Duration::from_secs(180), |line, since| {
        if line.contains(WORD) {
            reached.get_or_insert(since);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    let reached: Option<Duration> = reached;
    let time = reached.with_context(|| format!("QEMU's guest says:\n{}", transcript.tail()))?;
    Ok(time.as_secs_f64())
}

/// A disk with a shell.
fn disk(archive: &Archive) -> Result<PathBuf> {
    let folder = repository::cache().join("bench-exec");
    let (tree, image) = (folder.join("tree"), folder.join("root.img"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(tree.join("bin"))?;
    let busybox = archive.unpacked("busybox-static")?.join("bin/busybox");
    fs::copy(busybox, tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    let mut mke2fs = Command::new("mke2fs");
    // Where Debian has it; an unprivileged user's path may not.
    mke2fs.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&tree).arg(&image).arg("32M");
    process::capture(&mut mke2fs)?;
    Ok(image)
}

fn initramfs(archive: &Archive) -> Result<Small> {
    let kernel = Kernel::get(archive, &kernel::STOCK)?;
    let mut root = cpio::Archive::with_console();
    root.file("init", 0o755, INIT.as_bytes().to_vec());
    root.directory("root");
    image::add_shell(&mut root, archive)?;
    image::add_modules(&mut root, archive, &kernel, &MODULES)?;
    Small::new(archive, &kernel::STOCK, &root, "exec", Vec::new())
}
