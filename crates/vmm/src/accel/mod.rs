//! Accelerators: what executes a machine's processors. Devices and boot know none of them.

mod choice;
mod entry;
mod kvm;
mod sgx;
mod soft;

pub use choice::{AccelError, Accelerator, Choice, PassedOver};
pub use cloister_cpu::{Activity, ArchState, DebugPoints, DebugStop, Watchpoint};
pub use kvm::{Host as KvmHost, HostSgx, HostSgxError, Ioctls, KvmError, StandIn, VepcResetError};
pub use sgx::{EpcResetError, GuestSgx};
pub use soft::Translators;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cloister_boot::EntryState;
use cloister_devices::{DmaObserver, MsiSink};
use cloister_virt::EpcExhausted;
use cloister_x86::Gpa;
use thiserror::Error;
use vm_memory::GuestMemoryMmap;

use crate::complaint::{Complaint, Phrase, Setting};
use crate::cpuid::{GuestCpuid, TSC_HZ};

/// What an accelerator is told of a machine.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// Guest RAM.
    pub ram: GuestMemoryMmap,
    /// Number of processors.
    pub cpus: u32,
    /// Whether they have VMX.
    pub vmx: bool,
    /// SGX, if the guest has it.
    pub sgx: Option<GuestSgx>,
    /// What executes it.
    pub accelerator: Accelerator,
}

impl VmConfig {
    /// The machine's processors in the state after reset; their threads are the caller's.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Memory`], [`VcpuError::Barrier`], [`VcpuError::Kvm`].
    pub fn create(&self) -> Result<Arc<dyn Vm>, VcpuError> {
        Ok(match &self.accelerator {
            Accelerator::Soft(translators) => {
                Arc::new(soft::SoftVm::new(self, translators, TSC_HZ)?)
            }
            Accelerator::Kvm(host, stand_in) => {
                Arc::new(kvm::KvmVm::new(host, self, stand_in.as_deref())?)
            }
        })
    }

    /// What CPUID says on these processors.
    #[must_use]
    pub fn cpuid(&self) -> GuestCpuid {
        match &self.accelerator {
            Accelerator::Soft(_) => soft::cpuid(self),
            Accelerator::Kvm(host, _) => kvm::cpuid(host, self),
        }
    }
}

/// The processors of one machine, from one reset to the next.
pub trait Vm: Send + Sync {
    /// The processor with APIC ID `id`. With `entry` it is the bootstrap processor and begins
    /// there; without, it waits for a start-up IPI. To be called once for each ID, and run on a
    /// thread of its own.
    ///
    /// # Errors
    ///
    /// The host has no resources for it.
    fn vcpu(&self, id: u32, entry: Option<&EntryState>) -> Result<Box<dyn Vcpu>, VcpuError>;

    /// The way of interrupts to the local APICs.
    fn msi_sink(&self) -> Arc<dyn MsiSink>;

    /// Who has to know about the writes of devices to guest RAM.
    fn dma_observer(&self) -> Option<Arc<dyn DmaObserver>>;

    /// Makes [`Vcpu::run`] of every processor return [`VmEvent::Interrupted`] soon, and of those
    /// that are not running when they run next. Called from any thread.
    fn interrupt_all(&self);

    /// Takes `time` back from the guest's clock, by which its time stamp counters and timers go: that
    /// much has not passed for it. Called while no processor runs.
    fn skip_time(&self, time: Duration);
}

/// The state of a processor as plain data: what a debugger shows and changes, and a snapshot keeps.
pub trait VcpuState {
    /// Its architectural state, between two instructions. Called while the processor does not run.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    fn state(&self) -> Result<ArchState, VcpuError>;

    /// Replaces its architectural state. Software processors check nothing. Called while the processor does
    /// not run and no [`VmEvent`] waits for an answer.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`] for a state that KVM refuses, of which a part may be there then.
    fn set_state(&mut self, state: ArchState) -> Result<(), VcpuError>;
}

/// A processor under a debugger of the owner's, which the guest does not notice. All of it is called while
/// the processor does not run.
pub trait VcpuDebug {
    /// Sets where it stops with [`VmEvent::Debug`], for `None` nowhere any more. One that goes on at a
    /// breakpoint stops at it again, unless by a step.
    ///
    /// # Errors
    ///
    /// [`VcpuError::DebugPoints`] for more than the accelerator has room for: then those before stay.
    fn set_debug_points(&mut self, points: Option<&DebugPoints>) -> Result<(), VcpuError>;

    /// Has it stop after one instruction. On a software processor interrupts wait until then.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    fn debug_step(&mut self) -> Result<(), VcpuError>;

    /// Makes its state fit to be shown: takes back a step that was not made, and leaves an enclave whose
    /// contents are nobody's to see.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    fn debug_pause(&mut self) -> Result<(), VcpuError>;

    /// Reads memory at linear address `la`, and returns how many bytes came before the first that is not
    /// memory. The EPC reads as ones.
    fn debug_read(&self, la: u64, data: &mut [u8]) -> usize;

    /// Writes RAM at linear address `la`. Returns whether it did: all of it or nothing.
    fn debug_write(&mut self, la: u64, data: &[u8]) -> bool;
}

/// One processor.
pub trait Vcpu: VcpuState + VcpuDebug + Send {
    /// Runs until the machine has to act. What an event asks to be filled in is taken when the
    /// processor runs again.
    ///
    /// # Errors
    ///
    /// The host failed the processor: it cannot go on.
    fn run(&mut self) -> Result<VmEvent<'_>, VcpuError>;
}

/// What a processor needs of the machine around it.
#[derive(Debug)]
pub enum VmEvent<'a> {
    /// IN: fill `data`.
    IoRead {
        /// Port number.
        port: u16,
        /// 1, 2 or 4 bytes.
        data: &'a mut [u8],
    },
    /// OUT.
    IoWrite {
        /// Port number.
        port: u16,
        /// 1, 2 or 4 bytes.
        data: &'a [u8],
    },
    /// A load from no memory: fill `data`.
    MmioRead {
        /// Guest-physical address.
        gpa: u64,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A store to no memory.
    MmioWrite {
        /// Guest-physical address.
        gpa: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
    /// End of a level-triggered interrupt, for the I/O APIC.
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// A triple fault: the machine resets (SDM Vol. 3A, 6.15, "Interrupt 8").
    TripleFault,
    /// INIT reached the bootstrap processor, which is at the reset vector now. The firmware that a PC
    /// has there starts the machine over.
    Init,
    /// [`Vm::interrupt_all`] was called.
    Interrupted,
    /// The debugger has the processor stop here.
    Debug(DebugStop),
}

/// The host failed a processor. [`VcpuError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum VcpuError {
    /// There is no EPC to back a page of virtual EPC.
    #[error("no EPC for the guest's page at {gpa}: {reason}")]
    EpcExhausted {
        /// The page.
        gpa: Gpa,
        /// Whose limit it was.
        reason: EpcExhausted,
    },
    /// The host has no memory for what an accelerator keeps about guest RAM.
    #[error("the host has no memory to keep track of so much guest RAM")]
    Memory,
    /// The host cannot make processors see each other's changes of code.
    #[error("several processors need membarrier(2), which fails here: {0}")]
    Barrier(io::Error),
    /// KVM refuses a request.
    #[error("{what}: {source}")]
    Kvm {
        /// The request.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The host's processor refuses the guest's state.
    #[error("KVM cannot enter the guest: hardware reason {0:#x}")]
    KvmEntry(u64),
    /// KVM cannot go on.
    #[error("KVM cannot go on at RIP {rip:#x}: {}", internal(*.suberror, .bytes))]
    KvmInternal {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
        /// Where the guest is.
        rip: u64,
        /// The instruction there, where KVM knows it.
        bytes: Vec<u8>,
    },
    /// More breakpoints and watchpoints than the processor has debug registers.
    #[error("a processor under KVM stops at four breakpoints and watchpoints at most")]
    DebugPoints,
}

/// What KVM cannot do (linux/kvm.h, KVM_INTERNAL_ERROR_*).
fn internal(suberror: u32, bytes: &[u8]) -> String {
    let what = match suberror {
        1 => "it does not emulate this instruction",
        2 => "an exception while another was delivered",
        3 => "an exit while an event was delivered",
        4 => "an exit that it does not know",
        _ => "an internal error",
    };
    match bytes {
        [] => format!("{what} (suberror {suberror})"),
        bytes => format!("{what} (suberror {suberror}, bytes {bytes:02x?})"),
    }
}

impl VcpuError {
    /// KVM refuses `what`.
    pub(crate) fn kvm(what: &'static str, error: kvm_ioctls::Error) -> Self {
        Self::Kvm { what, source: error.into() }
    }

    /// Which setting the host cannot serve, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        match self {
            Self::EpcExhausted { .. } => Complaint::of_nothing_set(self),
            Self::Kvm { .. } | Self::KvmEntry(_) | Self::KvmInternal { .. } | Self::DebugPoints => {
                let fix = Phrase::from("write ").setting(Setting::Accelerator).text(" soft");
                Complaint::new(Setting::Accelerator, self.to_string(), fix)
            }
            Self::Memory => {
                Complaint::new(Setting::Memory, self.to_string(), "write a smaller size")
            }
            Self::Barrier(_) => {
                let fix = Phrase::from("use ").setting(Setting::Cpus).text(
                    " 1, or a host whose kernel has CONFIG_MEMBARRIER and whose sandbox allows it",
                );
                Complaint::new(Setting::Cpus, self.to_string(), fix)
            }
        }
    }
}
