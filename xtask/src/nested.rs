//! What L1 boots, a guest with guests of its own: what L2, its guest, boots, and KVM and QEMU besides.
//!
//! The kernel takes an initramfs of several archives, one after the other, so L1's begins with L2's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::apt::Archive;
use crate::kernel::{Kernel, Line};
use crate::{cpio, image, process, repository};

/// What the lines of the console that L2 prints begin with.
pub(crate) const L2: &str = "L2: ";
/// What Cloister is told for L1: VMX, and the provisioning key, which QEMU hands on to L2.
pub(crate) const CPU: (&str, &str) = ("--cpu", "host,+sgx-provisionkey,+vmx");
/// L1's EPC. L2's is of the same size and backed by all of it.
pub(crate) const EPC: (&str, &str) = ("--sgx-epc", "id=epc0,size=64M");
/// Room for L2's RAM of 512 MiB, QEMU and the initramfs.
pub(crate) const MEMORY: &str = "1G";

/// The same with room for [`Vmm::Cloister`] and what it keeps.
pub(crate) const MORE_MEMORY: &str = "1500M";

/// What L2's init does for the demo. Its kernel is quiet, so it is asked for its log.
pub(crate) const DEMO: &str = "sgx,dmesg:sgx,enclave-demo";

/// Loaded by init's task `modules`: KVM of Intel's processors, and of AMD's.
const INTEL: &str = "kvm-intel";
const AMD: &str = "kvm-amd";
/// Programs of `/bin` in L1, from `guest/nested`.
const SCRIPTS: [&str; 7] = ["kvm", "l2", "l2-beside", "l2-each", "l2-kill", "l2-monitor", "memory"];
/// The package of QEMU and its program.
const PACKAGE: &str = "qemu-system-x86";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// What QEMU loads for a `pc` that boots a kernel of its command line under KVM.
const FIRMWARE: [&str; 4] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/pvh.bin",
    "usr/share/qemu/kvmvapic.bin",
];
/// Where packages have libraries and the loader of programs.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// What runs L2 in L1.
#[derive(Clone, Copy)]
pub(crate) enum Vmm<'a> {
    /// QEMU's.
    Qemu,
    /// This program of the project.
    Cloister(&'a Path),
}

/// Fetches QEMU.
///
/// # Errors
/// As [`Archive::unpacked`].
pub(crate) fn fetch() -> Result<()> {
    Archive::open()?.unpacked_for_a_guest(PACKAGE).map(drop)
}

/// An initramfs of init, KVM's modules and `exits`, the program that times VM exits, for a kernel of this
/// line.
///
/// # Errors
/// As [`image::Image::get`].
pub(crate) fn kvm(line: &Line, name: &str) -> Result<image::Small> {
    let archive = Archive::open()?;
    image::Small::new(&archive, line, &with_kvm(&archive, line)?, name, Vec::new())
}

/// The same with Linux's selftests of KVM, for the stock kernel.
///
/// # Errors
/// As [`image::Image::get`].
pub(crate) fn kvm_selftests() -> Result<image::Small> {
    let archive = Archive::open()?;
    let programs = crate::kvm_selftests::Programs::build(&archive)?;
    let mut root = with_kvm(&archive, &crate::kernel::STOCK)?;
    programs.add(&mut root)?;
    let names = programs.names().map(str::to_owned).collect();
    image::Small::new(&archive, &crate::kernel::STOCK, &root, "kvm-selftests", names)
}

/// What provokes the rules of SGX virtualization: as a guest of Cloister, and as L2.
pub(crate) struct Rules {
    /// A kernel by the PVH boot protocol.
    pub(crate) program: PathBuf,
    /// Its initial RAM disk.
    pub(crate) sigstruct: PathBuf,
    /// L1, whose L2 it is.
    pub(crate) l1: image::Small,
}

impl Rules {
    /// For L1 with a kernel of this line.
    ///
    /// # Errors
    /// As [`image::Image::get`].
    pub(crate) fn get(line: &Line, name: &str) -> Result<Self> {
        let archive = Archive::open()?;
        let program = crate::guest::rules()?;
        let signed = crate::enclave::sign_nothing()?;
        let sigstruct = image::write(&signed, "rules-sigstruct")?;
        let mut root = with_kvm(&archive, line)?;
        add_qemu(&mut root, &archive.unpacked_for_a_guest(PACKAGE)?)?;
        root.file("l2/vmlinuz", 0o644, process::read(&program)?);
        root.file("l2/initrd", 0o644, signed);
        let l1 = image::Small::new(&archive, line, &root, name, Vec::new())?;
        Ok(Self { program, sigstruct, l1 })
    }
}

/// What runs random enclave programs: as a guest of Cloister, and as L2.
pub(crate) struct Random {
    /// A kernel by the PVH boot protocol.
    pub(crate) program: PathBuf,
    /// Its initial RAM disk.
    pub(crate) sigstruct: PathBuf,
    /// L1, whose L2 it is.
    pub(crate) l1: image::Small,
}

impl Random {
    /// With this `cloister` in L1.
    ///
    /// # Errors
    /// As [`image::Image::get`].
    pub(crate) fn get(cloister: &Path) -> Result<Self> {
        let archive = Archive::open()?;
        let program = crate::guest::random()?;
        let signed = crate::enclave::sign_random()?;
        let sigstruct = image::write(&signed, "random-sigstruct")?;
        let mut root = with_kvm(&archive, &crate::kernel::STOCK)?;
        add_cloister(&mut root, cloister, &archive.unpacked_for_a_guest(PACKAGE)?)?;
        root.file("l2/vmlinuz", 0o644, process::read(&program)?);
        root.file("l2/initrd", 0o644, signed);
        let l1 = image::Small::new(&archive, &crate::kernel::STOCK, &root, "random", Vec::new())?;
        Ok(Self { program, sigstruct, l1 })
    }
}

fn with_kvm(archive: &Archive, line: &Line) -> Result<cpio::Archive> {
    let mut root = cpio::Archive::with_console();
    root.file("init", 0o755, process::read(&crate::guest::Programs::build()?.init)?);
    image::add_mount_points(&mut root);
    add_kvm(&mut root, archive, &Kernel::get(archive, line)?, INTEL)?;
    Ok(root)
}

fn add_kvm(
    root: &mut cpio::Archive,
    archive: &Archive,
    kernel: &Kernel,
    module: &str,
) -> Result<()> {
    image::add_modules(root, archive, kernel, &[module])?;
    image::add_shell(root, archive)?;
    for name in SCRIPTS {
        let source = repository::root().join(format!("guest/nested/{name}.sh"));
        root.file(&format!("bin/{name}"), 0o755, process::read(&source)?);
    }
    root.file("bin/exits", 0o755, process::read(&crate::guest::Programs::build()?.exits)?);
    Ok(())
}

/// The initramfs of L1 whose L2 boots the stock kernel with an initramfs, which may be such a one again.
///
/// # Errors
/// Packages that cannot be fetched; a library that QEMU lacks.
pub(crate) fn initrd(l2: &Path, name: &str, vmm: Vmm<'_>) -> Result<PathBuf> {
    initrd_with(l2, name, vmm, INTEL)
}

/// The same for an L1 on AMD's processors.
///
/// # Errors
/// As [`initrd`].
pub(crate) fn initrd_for_amd(l2: &Path, name: &str, vmm: Vmm<'_>) -> Result<PathBuf> {
    initrd_with(l2, name, vmm, AMD)
}

fn initrd_with(l2: &Path, name: &str, vmm: Vmm<'_>, module: &str) -> Result<PathBuf> {
    let archive = Archive::open()?;
    let kernel = Kernel::get(&archive, &crate::kernel::STOCK)?;
    let qemu = archive.unpacked_for_a_guest(PACKAGE)?;
    let l2_initrd = process::read(l2)?;
    let mut root = cpio::Archive::default();
    add_kvm(&mut root, &archive, &kernel, module)?;
    match vmm {
        Vmm::Qemu => add_qemu(&mut root, &qemu)?,
        Vmm::Cloister(program) => add_cloister(&mut root, program, &qemu)?,
    }
    root.file("l2/vmlinuz", 0o644, process::read(&kernel.image)?);
    root.file("l2/initrd", 0o644, l2_initrd.clone());
    image::write(&[l2_initrd, root.finish()].concat(), name)
}

/// QEMU with its firmware and libraries.
fn add_qemu(root: &mut cpio::Archive, packages: &Path) -> Result<()> {
    for file in FIRMWARE {
        root.file(file, 0o644, process::read(&packages.join(file))?);
    }
    add_program(root, PROGRAM, &packages.join(PROGRAM), packages)
}

/// This project's own, without what debuggers want, in L1's RAM.
fn add_cloister(root: &mut cpio::Archive, program: &Path, packages: &Path) -> Result<()> {
    let stripped = repository::cache().join(format!("cloister-stripped.{}", std::process::id()));
    let mut strip = Command::new("strip");
    process::capture(strip.arg("-o").arg(&stripped).arg(program))?;
    add_program(root, "usr/bin/cloister", &stripped, packages)?;
    Ok(fs::remove_file(&stripped)?)
}

/// A program by its name in L1, with the libraries that the loader finds for it.
fn add_program(
    root: &mut cpio::Archive,
    name: &str,
    program: &Path,
    packages: &Path,
) -> Result<()> {
    root.file(name, 0o755, process::read(program)?);
    let folders = LIBRARIES.map(|folder| packages.join(folder).display().to_string());
    let mut loader = Command::new(packages.join(LOADER));
    loader.args(["--library-path", &folders.join(":"), "--list"]).arg(program);
    for line in process::capture(&mut loader)?.lines() {
        if let Some(Library { name, file }) = library(line)? {
            // The loader's own name is a path.
            let path = Path::new("/lib/x86_64-linux-gnu").join(name);
            root.file(&path.display().to_string(), 0o755, process::read(Path::new(file))?);
        }
    }
    Ok(())
}

/// A library by the name that a program has for it.
#[derive(Debug, PartialEq, Eq)]
struct Library<'a> {
    name: &'a str,
    file: &'a str,
}

/// Reads a line of the loader's list: `NAME => FILE (ADDRESS)`, or of the vDSO, which is not a file.
fn library(line: &str) -> Result<Option<Library<'_>>> {
    match line.trim().split_once(" => ") {
        Some((name, "not found")) => {
            bail!("a program needs {name}, which no package of {PACKAGE} has")
        }
        Some((name, found)) => {
            let file = found.rsplit_once(" (").map_or(found, |(file, _)| file);
            Ok(Some(Library { name, file }))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{Library, library};

    #[test]
    fn lines_of_the_loaders_list_name_libraries_and_their_files() {
        let vdso = "\tlinux-vdso.so.1 (0x00007ffd1a9f2000)";
        let libm = "\tlibm.so.6 => /root/lib/libm.so.6 (0x00007f0000000000)";

        assert_eq!(library(vdso).unwrap(), None);
        let expected = Library { name: "libm.so.6", file: "/root/lib/libm.so.6" };
        assert_eq!(library(libm).unwrap(), Some(expected));
    }

    #[test]
    fn a_library_that_is_missing_is_an_error() {
        assert!(library("\tlibaio.so.1 => not found").is_err());
    }
}
