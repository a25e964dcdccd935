//! SGX for a guest of a KVM that has none: its leaves and enclaves run on a software processor.
//!
//! On the host's processor ENCLS and ENCLU are #UD. A breakpoint at the first instruction of the guest's #UD
//! handler, which the guest does not notice (KVM_SET_GUEST_DEBUG), stops the processor there. The delivery of
//! the exception is taken back, the state goes to a software processor over the same RAM, which has the
//! EPC, and what it has come to when it is outside of enclaves goes to KVM. EPC reads as ones elsewhere, and the
//! MSRs of SGX are the software processor's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloister_cpu::ArchState;
use cloister_x86::msr;
use cloister_x86::regs::Rflags;
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::debug::GuestPoints;
use super::kick::Kicks;
use super::{msrs, state};
use crate::accel::soft::SoftVcpu;
use crate::accel::{Vcpu as _, VcpuDebug as _, VcpuError, VcpuState as _, VmEvent};

/// How long a processor stays in enclaves at most, before it looks for interrupts, which come to KVM's local
/// APIC: then there is an AEX for none, as one for an SMI is.
const SLICE: Duration = Duration::from_millis(1);
/// ENCLV, ENCLS and ENCLU.
const LEAVES: [[u8; 3]; 3] = [[0x0f, 0x01, 0xc0], [0x0f, 0x01, 0xcf], [0x0f, 0x01, 0xd7]];
/// Vector of #UD.
pub(super) const INVALID_OPCODE: u64 = 6;
/// The bits of an interrupt gate's eight bytes that say present and 64-bit (SDM Vol. 3A, 6.14.1).
pub(super) const GATE_KIND: u64 = 0x8e << 40;
const GATE_MASK: u64 = 0x9e << 40;

/// Where the guest's #UD handler is, as any of its processors has seen it; 0 before.
#[derive(Debug, Default)]
pub(super) struct Handler(AtomicU64);

impl Handler {
    /// Where it is.
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|&at| at != 0)
    }

    /// Looks for it in the IDT of a processor that does not run. Returns whether it is somewhere else than
    /// before.
    pub(super) fn look(&self, vcpu: &VcpuFd, ram: &GuestMemoryMmap) -> Result<bool, VcpuError> {
        let sregs = vcpu.get_sregs().map_err(|error| VcpuError::kvm("KVM_GET_SREGS", error))?;
        let found = gate(vcpu, ram, sregs.idt.base).filter(|_| sregs.efer & LONG_MODE_ACTIVE != 0);
        let Some(at) = found else { return Ok(false) };
        Ok(self.0.swap(at, Ordering::SeqCst) != at)
    }
}

/// IA32_EFER.LMA.
const LONG_MODE_ACTIVE: u64 = 1 << 10;

/// The handler of #UD by the IDT at linear address `idt`.
fn gate(vcpu: &VcpuFd, ram: &GuestMemoryMmap, idt: u64) -> Option<u64> {
    let translation = vcpu.translate_gva(idt.wrapping_add(16 * INVALID_OPCODE)).ok()?;
    if translation.valid == 0 {
        return None;
    }
    // Gates do not cross pages.
    let [low, high]: [u64; 2] = ram.read_obj(GuestAddress(translation.physical_address)).ok()?;
    let offset = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    (low & GATE_MASK == GATE_KIND).then_some(offset)
}

/// How an excursion to the software processor goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is over: KVM has the state, with these breakpoints of the guest's.
    Over(GuestPoints),
    /// A load from no memory, of so many bytes.
    MmioRead { gpa: u64, len: usize },
    /// A store to no memory.
    MmioWrite { gpa: u64, len: usize },
    /// A triple fault.
    TripleFault,
}

/// The software processor that stands in for one of KVM's.
pub(super) struct Trap {
    soft: SoftVcpu,
    kicks: Arc<Kicks>,
    /// Where its breakpoint is.
    armed: Option<u64>,
    /// What KVM's processor was left with, while the other runs.
    away: Option<ArchState>,
}

impl Trap {
    /// For a processor of a machine whose processors all are in `kicks`.
    pub(super) const fn new(soft: SoftVcpu, kicks: Arc<Kicks>) -> Self {
        Self { soft, kicks, armed: None, away: None }
    }

    /// Where the breakpoint is to be, if it is not there: before a processor runs under KVM.
    pub(super) fn rearm(&mut self, handler: &Handler) -> Option<u64> {
        let at = handler.get();
        if self.armed == at {
            return None;
        }
        self.armed = at;
        at
    }

    /// After a processor has run under KVM: looks whether its #UD handler is where it was, and tells the
    /// others.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    pub(super) fn look(
        &self,
        handler: &Handler,
        vcpu: &VcpuFd,
        ram: &GuestMemoryMmap,
    ) -> Result<(), VcpuError> {
        if handler.look(vcpu, ram)? {
            self.kicks.request();
        }
        Ok(())
    }

    /// Whether the software processor runs.
    pub(super) const fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Takes over a processor that is at the #UD handler. Returns whether a leaf of SGX has led there.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    pub(super) fn take_over(&mut self, vcpu: &VcpuFd) -> Result<bool, VcpuError> {
        let state = state::get(vcpu)?;
        self.soft.set_state(state.clone())?;
        if !self.soft.undo_exception() {
            return Ok(false);
        }
        let rip = self.soft.state()?.rip;
        let mut bytes = [0; 3];
        if self.soft.debug_read(rip, &mut bytes) != bytes.len() || !LEAVES.contains(&bytes) {
            return Ok(false);
        }
        self.go(vcpu, state)?;
        Ok(true)
    }

    /// Takes over a processor for the instruction at its RIP.
    ///
    /// # Errors
    ///
    /// [`VcpuError::Kvm`].
    pub(super) fn stand_in(&mut self, vcpu: &VcpuFd) -> Result<(), VcpuError> {
        let state = state::get(vcpu)?;
        self.soft.set_state(state.clone())?;
        self.go(vcpu, state)
    }

    fn go(&mut self, vcpu: &VcpuFd, state: ArchState) -> Result<(), VcpuError> {
        let tsc = msrs::get(vcpu, msr::TSC)?.unwrap_or_default();
        self.soft.begin_excursion(SLICE, tsc);
        self.away = Some(state);
        Ok(())
    }

    /// Runs the software processor.
    ///
    /// # Errors
    ///
    /// [`VcpuError`].
    pub(super) fn run(&mut self, vcpu: &VcpuFd) -> Result<Outcome, VcpuError> {
        match self.soft.run()? {
            VmEvent::MmioRead { gpa, data } => {
                return Ok(Outcome::MmioRead { gpa, len: data.len() });
            }
            VmEvent::MmioWrite { gpa, data } => {
                return Ok(Outcome::MmioWrite { gpa, len: data.len() });
            }
            VmEvent::TripleFault => {
                self.away = None;
                return Ok(Outcome::TripleFault);
            }
            // It is outside, or its time is up.
            _ => {}
        }
        self.soft.end_excursion();
        let mut state = self.soft.state()?;
        if let Some(left) = self.away.take() {
            state.msrs.tsc_offset = left.msrs.tsc_offset;
        }
        if Some(state.rip) == self.armed {
            // The leaf itself is #UD: the guest has it to handle.
            state.system_flags.insert(Rflags::RF);
        }
        state::set(vcpu, &state)?;
        Ok(Outcome::Over(GuestPoints { addresses: state.dr, control: state.dr7 }))
    }

    /// The bytes of the device access that [`Trap::run`] has returned.
    pub(super) fn data(&mut self, len: usize) -> &mut [u8] {
        self.soft.access_data(len)
    }

    /// RDMSR of one of SGX's; `None` is #GP(0).
    pub(super) fn rdmsr(&self, index: u32) -> Option<u64> {
        self.soft.sgx_rdmsr(index)
    }

    /// WRMSR of one of SGX's; `false` is #GP(0).
    pub(super) fn wrmsr(&mut self, index: u32, value: u64) -> bool {
        self.soft.sgx_wrmsr(index, value)
    }
}

/// The MSRs of SGX: first and number.
pub(super) const MSRS: [(u32, u32); 4] = [
    (msr::FEATURE_CONTROL, 1),
    (msr::SGXLEPUBKEYHASH0, 4),
    (msr::SGXOWNEREPOCH0, 2),
    (msr::SGX_SVN_STATUS, 1),
];
