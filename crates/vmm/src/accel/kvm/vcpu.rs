//! One processor under KVM.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cloister_cpu::ArchState;
use cloister_x86::regs::Rflags;
use kvm_ioctls::VcpuFd;

use super::debug::Debug;
use super::exit::{KvmExit, MMIO_DATA, MSR_DATA, MSR_ERROR, PortAccess};
use super::interrupts::LocalApics;
use super::kick::Kick;
use super::pages::RunPages;
use super::trap::{Outcome, Trap};
use super::vm::Shared;
use super::{clock, state};
use crate::accel::{DebugPoints, Vcpu, VcpuDebug, VcpuError, VcpuState, VmEvent};

/// A processor under KVM.
pub(super) struct KvmVcpu {
    fd: VcpuFd,
    pages: Arc<RunPages>,
    kick: Arc<Kick>,
    vm: Arc<Shared>,
    apics: Arc<LocalApics>,
    /// What the machine's answer to the last event is for.
    pending: Pending,
    /// Little-endian value of a device access.
    data: [u8; 8],
    /// How much of [`Shared::stood_still`] the processor's clock has been told.
    stood_still: u64,
    debug: Debug,
    /// Where the guest's SGX is not the host's.
    trap: Option<Trap>,
}

/// The last event, if the processor waits for the machine to have dealt with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pending {
    Nothing,
    /// A load, whose bytes belong there in the pages.
    Load {
        at: usize,
        len: usize,
    },
    /// Access number `n` of a string instruction.
    Port {
        access: PortAccess,
        n: usize,
    },
}

/// What the machine has to act on.
enum Next {
    /// An exit of KVM's.
    Kvm(KvmExit),
    /// An event of the software processor that stands in.
    Away(Outcome),
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kick.leave();
    }
}

impl KvmVcpu {
    pub(super) fn new(
        fd: VcpuFd,
        pages: Arc<RunPages>,
        kick: Arc<Kick>,
        vm: Arc<Shared>,
        apics: Arc<LocalApics>,
        trap: Option<Trap>,
    ) -> Self {
        let (pending, data) = (Pending::Nothing, [0; 8]);
        let debug = Debug::default();
        Self { fd, pages, kick, vm, apics, pending, data, stood_still: 0, debug, trap }
    }

    /// Hands KVM what the machine made of the last event. Returns the next access of a string instruction,
    /// if there is one.
    fn resume(&mut self) -> Option<(PortAccess, usize)> {
        match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Load { at, len } => {
                self.pages.write(at, &self.data[..len]);
                None
            }
            Pending::Port { access, n } => {
                if !access.out {
                    self.pages.write(place(&access, n), &self.data[..access.size]);
                }
                (n + 1 < access.count).then_some((access, n + 1))
            }
        }
    }

    /// The event of one access of ports.
    fn port(&mut self, access: PortAccess, n: usize) -> VmEvent<'_> {
        self.pending = Pending::Port { access, n };
        let data = &mut self.data[..access.size];
        if access.out {
            self.pages.read_into(place(&access, n), data);
            VmEvent::IoWrite { port: access.port, data }
        } else {
            data.fill(0);
            VmEvent::IoRead { port: access.port, data }
        }
    }

    /// Runs the guest until KVM returns.
    fn run_guest(&mut self) -> Result<KvmExit, VcpuError> {
        match self.fd.run() {
            Ok(_) => Ok(KvmExit::read(&self.pages)),
            Err(error) => match error.errno() {
                libc::EINTR => {
                    self.kick.clear();
                    Ok(KvmExit::Interrupted)
                }
                // A processor that waited for its start-up IPI has got one.
                libc::EAGAIN => Ok(KvmExit::Interrupted),
                _ => Err(VcpuError::kvm("KVM_RUN", error)),
            },
        }
    }

    /// Runs the guest until the machine has to act.
    fn next(&mut self) -> Result<Next, VcpuError> {
        loop {
            let Some(trap) = &mut self.trap else { return self.run_guest().map(Next::Kvm) };
            if trap.is_away() {
                match trap.run(&self.fd)? {
                    Outcome::Over(points) => self.debug.set_guest(&self.fd, points)?,
                    outcome => return Ok(Next::Away(outcome)),
                }
            }
            if let Some(at) = trap.rearm(&self.vm.handler) {
                self.debug.set_own(&self.fd, at)?;
            }
            let exit = self.run_guest()?;
            if !self.answer(exit)? {
                return Ok(Next::Kvm(exit));
            }
        }
    }

    /// Answers what is about SGX that the host does not have. Returns whether it was.
    fn answer(&mut self, exit: KvmExit) -> Result<bool, VcpuError> {
        let Some(trap) = &mut self.trap else { return Ok(false) };
        match exit {
            KvmExit::Debug { pc, dr6 } if self.debug.is_own(pc, dr6) => {
                if !trap.take_over(&self.fd)? {
                    resume(&self.fd)?;
                }
            }
            KvmExit::Debug { dr6, .. } if self.debug.is_access(dr6) => trap.stand_in(&self.fd)?,
            // While its own registers are taken, all of the guest's debug exceptions come here.
            KvmExit::Debug { dr6, .. } if !self.debug.is_attached() => {
                self.debug.give_to_guest(&self.fd, dr6)?;
            }
            KvmExit::Rdmsr { index } => {
                let value = trap.rdmsr(index);
                self.pages.write(MSR_ERROR, &[value.is_none().into()]);
                self.pages.write(MSR_DATA, &value.unwrap_or_default().to_le_bytes());
            }
            KvmExit::Wrmsr { index, value } => {
                let written = trap.wrmsr(index, value);
                self.pages.write(MSR_ERROR, &[(!written).into()]);
            }
            _ => {
                trap.look(&self.vm.handler, &self.fd, &self.vm.ram)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The event of an excursion.
    fn away(&mut self, outcome: Outcome) -> VmEvent<'_> {
        match (outcome, &mut self.trap) {
            (Outcome::MmioRead { gpa, len }, Some(trap)) => {
                VmEvent::MmioRead { gpa, data: trap.data(len) }
            }
            (Outcome::MmioWrite { gpa, len }, Some(trap)) => {
                VmEvent::MmioWrite { gpa, data: trap.data(len) }
            }
            (Outcome::TripleFault, _) => VmEvent::TripleFault,
            _ => VmEvent::Interrupted,
        }
    }

    /// Tells the clock for how long it was to stand still.
    fn adjust_clock(&mut self) -> Result<(), VcpuError> {
        let total = self.vm.stood_still.load(Ordering::SeqCst);
        if total != self.stood_still {
            clock::take_back(&self.fd, self.vm.tsc_khz, self.stood_still, total)?;
            self.stood_still = total;
        }
        Ok(())
    }
}

/// Has a processor run the instruction that it stopped at.
fn resume(vcpu: &VcpuFd) -> Result<(), VcpuError> {
    let mut regs = vcpu.get_regs().map_err(|error| VcpuError::kvm("KVM_GET_REGS", error))?;
    regs.rflags |= Rflags::RF.bits();
    vcpu.set_regs(&regs).map_err(|error| VcpuError::kvm("KVM_SET_REGS", error))
}

/// Where the data of access number `n` is.
const fn place(access: &PortAccess, n: usize) -> usize {
    access.data.saturating_add(n.saturating_mul(access.size))
}

impl Vcpu for KvmVcpu {
    fn run(&mut self) -> Result<VmEvent<'_>, VcpuError> {
        if let Some((access, n)) = self.resume() {
            return Ok(self.port(access, n));
        }
        self.kick.enter();
        self.adjust_clock()?;
        let exit = match self.next()? {
            Next::Kvm(exit) => exit,
            Next::Away(outcome) => return Ok(self.away(outcome)),
        };
        Ok(match exit {
            KvmExit::Io(access) => self.port(access, 0),
            KvmExit::MmioRead { gpa, len } => {
                self.pending = Pending::Load { at: MMIO_DATA, len };
                self.data.fill(0);
                VmEvent::MmioRead { gpa, data: &mut self.data[..len] }
            }
            KvmExit::MmioWrite { gpa, len } => {
                self.pages.read_into(MMIO_DATA, &mut self.data[..len]);
                VmEvent::MmioWrite { gpa, data: &self.data[..len] }
            }
            KvmExit::Eoi { vector } => {
                self.apics.ended(vector);
                VmEvent::EndOfInterrupt { vector }
            }
            KvmExit::Shutdown => VmEvent::TripleFault,
            KvmExit::Interrupted => VmEvent::Interrupted,
            KvmExit::Debug { pc, dr6 } => VmEvent::Debug(self.debug.stopped(&self.fd, pc, dr6)?),
            KvmExit::FailEntry { reason } => return Err(VcpuError::KvmEntry(reason)),
            KvmExit::Internal(error) => {
                let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
                let (len, bytes) = error.bytes;
                let bytes = bytes[..len].to_vec();
                return Err(VcpuError::KvmInternal { suberror: error.suberror, rip, bytes });
            }
            // No register comes here but by a filter.
            KvmExit::Rdmsr { .. } | KvmExit::Wrmsr { .. } => VmEvent::Interrupted,
            KvmExit::Other(reason) => {
                let source = io::Error::other(format!("exit reason {reason}"));
                return Err(VcpuError::Kvm { what: "KVM_RUN", source });
            }
        })
    }
}

impl VcpuState for KvmVcpu {
    fn state(&self) -> Result<ArchState, VcpuError> {
        state::get(&self.fd)
    }

    fn set_state(&mut self, state: ArchState) -> Result<(), VcpuError> {
        state::set(&self.fd, &state)
    }
}

impl VcpuDebug for KvmVcpu {
    fn set_debug_points(&mut self, points: Option<&DebugPoints>) -> Result<(), VcpuError> {
        self.debug.set_points(&self.fd, points)
    }

    fn debug_step(&mut self) -> Result<(), VcpuError> {
        self.debug.step(&self.fd)
    }

    fn debug_pause(&mut self) -> Result<(), VcpuError> {
        self.debug.pause(&self.fd)
    }

    fn debug_read(&self, la: u64, data: &mut [u8]) -> usize {
        Debug::read(&self.fd, &self.vm.ram, la, data)
    }

    fn debug_write(&mut self, la: u64, data: &[u8]) -> bool {
        Debug::write(&self.fd, &self.vm.ram, la, data)
    }
}
