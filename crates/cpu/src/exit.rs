//! Why a virtual processor stops running.

use std::fmt;
use std::num::NonZeroU8;

use cloister_x86::Gpa;

use crate::debugger::DebugStop;

/// What executing an instruction yields.
///
/// Of a handler, whose `T` is `()`, that is one byte: 0 where the instruction retired, else the
/// [`Stop`]. Rust guarantees this layout of a `Result` of nothing and a [`NonZeroU8`], so that code
/// in another language can call a [`Handler`](crate::op::Handler).
pub type Exec<T = ()> = Result<T, Stop>;

const _: () = assert!(size_of::<Exec>() == 1 && align_of::<Exec>() == 1);

/// Why a handler did not simply retire its instruction. The details are in [`Cpu`](crate::Cpu).
/// Its only values are the associated constants.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Stop(NonZeroU8);

impl Stop {
    /// An exception: [`Cpu::take_fault`](crate::Cpu::take_fault) holds it. Nothing was committed.
    pub const FAULT: Self = Self::new(1);
    /// The owner must act: [`Cpu::take_exit`](crate::Cpu::take_exit) says how. Nothing was
    /// committed.
    pub const EXIT: Self = Self::new(2);
    /// The instruction stores into the page that its own block was decoded from. Nothing was
    /// committed; run it again on its own, and decode anew after it.
    pub const ALONE: Self = Self::new(3);
    /// The instruction retired and wrote `rip` itself; the rest of the block does not follow.
    pub const JUMP: Self = Self::new(4);
    /// In VMX non-root operation: the guest hypervisor takes over. Nothing was committed.
    pub const VM_EXIT: Self = Self::new(5);

    /// The byte that stands for it in [`Exec`].
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        self.0.get()
    }

    /// What a byte of [`Exec`] stands for; `None` for 0.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match NonZeroU8::new(code) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    const fn new(code: u8) -> Self {
        match NonZeroU8::new(code) {
            Some(code) => Self(code),
            None => panic!("0 means that the instruction retired"),
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::FAULT => "Fault",
            Self::EXIT => "Exit",
            Self::ALONE => "Alone",
            Self::JUMP => "Jump",
            _ => "VmExit",
        })
    }
}

/// What the owner of a [`Vcpu`](crate::Vcpu) has to do.
///
/// For exits marked *completed*, the owner calls the method named before it runs the processor
/// again. All others need no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// IN, or one element of INS. Completed by [`Vcpu::complete`](crate::Vcpu::complete) with the
    /// value.
    IoIn {
        /// Port number.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
    },
    /// OUT, or one element of OUTS. Completed by [`Vcpu::complete`](crate::Vcpu::complete); the
    /// value given is ignored.
    IoOut {
        /// Port number.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// The value, zero-extended.
        value: u32,
    },
    /// A read of a physical address that is not memory. Completed by
    /// [`Vcpu::complete`](crate::Vcpu::complete).
    MmioRead {
        /// Physical address; the access does not cross a page.
        gpa: Gpa,
        /// Bytes: 1 to 8.
        size: u8,
    },
    /// A write to a physical address that is not memory. Completed by
    /// [`Vcpu::complete`](crate::Vcpu::complete).
    MmioWrite {
        /// Physical address; the access does not cross a page.
        gpa: Gpa,
        /// Bytes: 1 to 8.
        size: u8,
        /// The value, zero-extended.
        value: u64,
    },
    /// RDMSR of a register that the processor does not own. Completed by
    /// [`Vcpu::finish_rdmsr`](crate::Vcpu::finish_rdmsr) or [`Vcpu::inject`](crate::Vcpu::inject).
    Rdmsr {
        /// MSR number.
        index: u32,
    },
    /// WRMSR to a register that the processor does not own.
    /// Completed by [`Vcpu::skip`](crate::Vcpu::skip) or [`Vcpu::inject`](crate::Vcpu::inject).
    Wrmsr {
        /// MSR number.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// CPUID. Completed by [`Vcpu::finish_cpuid`](crate::Vcpu::finish_cpuid).
    Cpuid {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
    },
    /// The processor is halted (HLT, or waits for a start-up IPI) and nothing can wake it now.
    /// The owner sleeps in [`Vcpu::wait`](crate::Vcpu::wait).
    Hlt,
    /// ENCLS with its bit set in the ENCLS-exiting bitmap. RIP is unmoved; completed by setting
    /// registers and [`Vcpu::skip`](crate::Vcpu::skip), or [`Vcpu::inject`](crate::Vcpu::inject).
    Encls {
        /// EAX.
        leaf: u32,
    },
    /// ENCLV with its bit set in the ENCLV-exiting bitmap. RIP is unmoved; completed as
    /// [`Exit::Encls`].
    Enclv {
        /// EAX.
        leaf: u32,
    },
    /// An SGX leaf reached a page of virtual EPC that is not backed. Back it and run again.
    EpcMiss {
        /// Guest-physical address of the page.
        gpa: Gpa,
    },
    /// End of interrupt for a level-triggered vector, to be told to the I/O APIC.
    Eoi {
        /// The vector.
        vector: u8,
    },
    /// INIT reached the bootstrap processor, which is at the reset vector now.
    Init,
    /// A triple fault: the platform resets the machine.
    TripleFault,
    /// Someone called [`Kicker::request_exit`](crate::Kicker::request_exit).
    Requested,
    /// The owner's debugger has the processor stop here: see
    /// [`Vcpu::set_debug_points`](crate::Vcpu::set_debug_points).
    Debug(DebugStop),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_different_bytes_that_have_names() {
        let stops = [Stop::FAULT, Stop::EXIT, Stop::ALONE, Stop::JUMP, Stop::VM_EXIT];

        assert_eq!(stops.map(|stop| stop.0.get()), [1, 2, 3, 4, 5]);
        assert_eq!(format!("{stops:?}"), "[Fault, Exit, Alone, Jump, VmExit]");
    }
}
