//! Why KVM_RUN returned, as `kvm_run` says it (linux/kvm.h).

use std::mem::offset_of;

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_OUT, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR, kvm_run,
};

use super::pages::RunPages;

/// Where the union of `kvm_run` is.
const DETAILS: usize = offset_of!(kvm_run, __bindgen_anon_1);
/// Where its `mmio.data` is.
pub(super) const MMIO_DATA: usize = DETAILS + 8;

/// Where its `msr.error` and `msr.data` are.
pub(super) const MSR_ERROR: usize = DETAILS;
pub(super) const MSR_DATA: usize = DETAILS + 16;

/// Why KVM_RUN returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KvmExit {
    /// IN or OUT.
    Io(PortAccess),
    /// A load from no memory, of so many bytes.
    MmioRead { gpa: u64, len: usize },
    /// A store to no memory.
    MmioWrite { gpa: u64, len: usize },
    /// End of a level-triggered interrupt.
    Eoi { vector: u8 },
    /// RDMSR of a register that is not KVM's.
    Rdmsr { index: u32 },
    /// WRMSR of one.
    Wrmsr { index: u32, value: u64 },
    /// A triple fault.
    Shutdown,
    /// A breakpoint, step or watchpoint of the owner's.
    Debug { pc: u64, dr6: u64 },
    /// Nothing in particular.
    Interrupted,
    /// The processor refuses the guest's state (SDM Vol. 3C, 26.8).
    FailEntry { reason: u64 },
    /// KVM cannot go on.
    Internal(InternalError),
    /// What this machine never asks for.
    Other(u32),
}

/// An access of I/O ports, one or as many as a string instruction makes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PortAccess {
    pub(super) out: bool,
    /// Bytes of one access: 1, 2 or 4.
    pub(super) size: usize,
    pub(super) port: u16,
    pub(super) count: usize,
    /// Where in the pages the data of the first is.
    pub(super) data: usize,
}

/// KVM_EXIT_INTERNAL_ERROR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct InternalError {
    /// KVM_INTERNAL_ERROR_*.
    pub(super) suberror: u32,
    /// How many bytes of the instruction at RIP are known, and these.
    pub(super) bytes: (usize, [u8; 15]),
}

/// KVM_INTERNAL_ERROR_EMULATION.
const EMULATION: u32 = 1;
/// KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES.
const HAS_BYTES: u64 = 1;

impl KvmExit {
    /// Reads the pages of a processor whose KVM_RUN has returned.
    pub(super) fn read(pages: &RunPages) -> Self {
        let reason = u32::from_le_bytes(pages.read(offset_of!(kvm_run, exit_reason)));
        let byte = |at: usize| pages.read::<1>(DETAILS + at)[0];
        let word = |at: usize| u32::from_le_bytes(pages.read(DETAILS + at));
        let long = |at: usize| u64::from_le_bytes(pages.read(DETAILS + at));
        match reason {
            KVM_EXIT_IO => Self::Io(PortAccess {
                out: u32::from(byte(0)) == KVM_EXIT_IO_OUT,
                size: usize::from(byte(1)).min(4),
                port: u16::from_le_bytes(pages.read(DETAILS + 2)),
                count: word(4) as usize,
                data: usize::try_from(long(8)).unwrap_or(usize::MAX),
            }),
            KVM_EXIT_MMIO => {
                let (gpa, len) = (long(0), (word(16) as usize).min(8));
                if byte(20) == 0 {
                    Self::MmioRead { gpa, len }
                } else {
                    Self::MmioWrite { gpa, len }
                }
            }
            KVM_EXIT_IOAPIC_EOI => Self::Eoi { vector: byte(0) },
            KVM_EXIT_X86_RDMSR => Self::Rdmsr { index: word(12) },
            KVM_EXIT_X86_WRMSR => Self::Wrmsr { index: word(12), value: long(16) },
            KVM_EXIT_SHUTDOWN => Self::Shutdown,
            KVM_EXIT_DEBUG => Self::Debug { pc: long(8), dr6: long(16) },
            KVM_EXIT_INTR | KVM_EXIT_IRQ_WINDOW_OPEN => Self::Interrupted,
            KVM_EXIT_FAIL_ENTRY => Self::FailEntry { reason: long(0) },
            KVM_EXIT_INTERNAL_ERROR => {
                let suberror = word(0);
                let known = suberror == EMULATION && word(4) >= 2 && long(8) & HAS_BYTES != 0;
                let len = if known { usize::from(byte(16)).min(15) } else { 0 };
                Self::Internal(InternalError { suberror, bytes: (len, pages.read(DETAILS + 17)) })
            }
            other => Self::Other(other),
        }
    }
}
