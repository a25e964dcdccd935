//! The system calls of a PID 1.
#![expect(unsafe_code, reason = "mount, reboot, finit_module and CPUID have no safe form in std")]

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Mounts proc, sys, dev and tmp. `/dev` must allow execution: an enclave's code
/// pages are mapped from `/dev/sgx_enclave`.
pub(crate) fn mount_all() {
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")]
    {
        if let Err(error) = mount_by(kind, kind, target) {
            println!("init: cannot mount {kind} on {target}: {error}");
        }
    }
}

/// Mounts a file system of this kind, with what it calls its source, at a folder that is made for it.
pub(crate) fn mount_by(kind: &str, source: &str, target: &str) -> Result<()> {
    std::fs::create_dir_all(target)?;
    let (kind, source) = (CString::new(kind)?, CString::new(source)?);
    let target = CString::new(target)?;
    // SAFETY: the strings are NUL-terminated and outlive the call.
    let status = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null())
    };
    check(status.into())
}

/// finit_module without parameters.
pub(crate) fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    // SAFETY: the descriptor is open and the parameter string is empty.
    check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) })
}

/// Ends the machine.
pub(crate) fn power_off() {
    end(libc::RB_POWER_OFF);
}

/// Resets the machine.
pub(crate) fn reboot() {
    end(libc::RB_AUTOBOOT);
}

fn end(how: i32) {
    // SAFETY: nothing of this image needs to survive. The last lines of the console
    // are still in the serial driver's buffer, hence tcdrain.
    unsafe {
        libc::tcdrain(1);
        libc::sync();
        libc::reboot(how);
    }
}

/// An ioctl of a block device that takes a range in bytes, or nothing.
pub(crate) fn block_ioctl(disk: &File, request: libc::Ioctl, range: [u64; 2]) -> Result<()> {
    // SAFETY: the kernel reads two numbers of 64 bits at most.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), request, range.as_ptr()) }.into())
}

/// Binds a process, 0 for the calling thread, to one CPU.
pub(crate) fn bind(process: i32, cpu: usize) -> Result<()> {
    // SAFETY: a zeroed cpu_set_t is an empty set; CPU_SET checks its index.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(process, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(status.into())
}

/// Puts a process into the real-time class SCHED_FIFO.
pub(crate) fn make_realtime(process: i32) -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call.
    let status =
        unsafe { libc::sched_setscheduler(process, libc::SCHED_FIFO, &raw const parameters) };
    check(status.into())
}

/// Major and minor number of a character device.
pub(crate) fn device_number(path: &Path) -> Result<(u32, u32)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a zeroed stat is valid, the path is NUL-terminated.
    let (status, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::stat(path.as_ptr(), &raw mut stat), stat)
    };
    check(status.into())?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR {
        return Err(Error::other("not a character device"));
    }
    Ok((libc::major(stat.st_rdev), libc::minor(stat.st_rdev)))
}

/// EAX, EBX, ECX and EDX of a CPUID leaf.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: CPUID changes these four registers only, and RBX, which inline assembly must not name, is
    // put back.
    unsafe {
        std::arch::asm!(
            "mov {rbx}, rbx",
            "cpuid",
            "xchg {rbx}, rbx",
            rbx = out(reg) ebx,
            inout("eax") leaf => eax,
            inout("ecx") subleaf => ecx,
            out("edx") edx,
            options(nomem, nostack, preserves_flags),
        );
    }
    [eax, ebx as u32, ecx, edx]
}

fn check(status: i64) -> Result<()> {
    if status < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
