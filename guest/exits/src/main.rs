//! What VM exits cost: a machine monitor whose guest does nothing but exit.
//!
//! It runs in L1 and prints `exit NAME NANOSECONDS` for each kind of exit, by L1's clock. An argument is the
//! name of the only kind.
#![expect(unsafe_code, reason = "std has no mmap, and guest memory is given to KVM by address")]

use std::io;
use std::ptr::{self, NonNull};
use std::time::Instant;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

/// Where the guest's code is. L1 has none at so low a linear address, by which xtask's debugger tells them
/// apart.
const CODE: usize = 0x1000;
/// The first page that is there to be touched.
const UNTOUCHED: usize = 0x2000;
const PAGE: usize = 4096;
/// Exits that are timed together, and how often: a host with other work takes the processor away in few of
/// these times, so that their median is an exit's own. A page is touched once.
const BATCH: usize = 100;
const BATCHES: usize = 201;

/// Loops that exit ESI times each and then halt. EDI is the first page to touch.
const LOOPS: [(&str, &[u8]); 3] = [
    // xor eax, eax; cpuid; dec esi; jnz; hlt
    ("cpuid", &[0x31, 0xc0, 0x0f, 0xa2, 0x4e, 0x75, 0xf9, 0xf4]),
    // out 0x80, al; dec esi; jnz; hlt
    ("out", &[0xe6, 0x80, 0x4e, 0x75, 0xfb, 0xf4]),
    // mov [edi], al; add edi, 4096; dec esi; jnz; hlt
    ("touch", &[0x88, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x4e, 0x75, 0xf5, 0xf4]),
];

fn main() -> Result<(), String> {
    run().map_err(|error| format!("cannot run a guest: {error}"))
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let only = std::env::args().nth(1);
    let mut guest = Guest::new()?;
    for (name, code) in LOOPS {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        guest.load(code);
        let mut times = Vec::with_capacity(BATCHES);
        for batch in 0..BATCHES {
            let start = Instant::now();
            guest.exit(BATCH, UNTOUCHED + batch * BATCH * PAGE)?;
            times.push(start.elapsed().as_nanos());
        }
        times.sort();
        println!("exit {name} {}", times[BATCHES / 2] / BATCH as u128);
    }
    Ok(())
}

/// One processor in 32-bit protected mode without paging, and RAM from address 0.
struct Guest {
    vcpu: VcpuFd,
    ram: NonNull<u8>,
    _vm: VmFd,
}

impl Guest {
    const SIZE: usize = UNTOUCHED + BATCHES * BATCH * PAGE;

    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        let ram = ram(Self::SIZE)?;
        let region = kvm_userspace_memory_region {
            memory_size: Self::SIZE as u64,
            userspace_addr: ram.as_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the memory stays mapped to the program's end, and Rust sees it through raw pointers alone.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        let mut sregs = vcpu.get_sregs()?;
        flat(&mut sregs);
        vcpu.set_sregs(&sregs)?;
        Ok(Self { vcpu, ram, _vm: vm })
    }

    fn load(&mut self, code: &[u8]) {
        // SAFETY: the code is shorter than the page it goes to, and no processor runs.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), self.ram.add(CODE).as_ptr(), code.len()) };
    }

    /// Runs the loop to its end.
    fn exit(&mut self, count: usize, first_page: usize) -> Result<(), Box<dyn std::error::Error>> {
        self.vcpu.set_regs(&kvm_regs {
            rip: CODE as u64,
            rsi: count as u64,
            rdi: first_page as u64,
            rflags: 2,
            ..Default::default()
        })?;
        loop {
            match self.vcpu.run()? {
                VcpuExit::IoOut(..) => {}
                VcpuExit::Hlt => return Ok(()),
                exit => return Err(format!("an exit of another kind: {exit:?}").into()),
            }
        }
    }
}

/// Segments of 4 GiB, and protected mode.
fn flat(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x10,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    sregs.cs = kvm_segment { selector: 8, type_: 11, ..data };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    sregs.cr0 |= 1;
}

/// Memory that is there before the guest touches it, in small pages, so that each touch is an EPT violation
/// and no more.
fn ram(size: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, that nobody else knows.
    let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: the whole of the mapping above.
        if unsafe { libc::madvise(address, size, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("a mapping at address 0"))
}
