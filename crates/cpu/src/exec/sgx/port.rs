//! How SGX leaves reach this processor's memory: the implementation of [`LeafPort`].

use cloister_sgx::{
    Capabilities, Conflict, EpcAccess, EpcIndex, LeafPort, SgxStatus, Stop as LeafStop,
};
use cloister_x86::addr::is_canonical;
use cloister_x86::segment::seg;
use cloister_x86::vmx::{ExitReason, SecondaryControls, sgx_conflict};
use cloister_x86::{Exception, La};

use crate::cpu::Cpu;
use crate::exit::{Exec, Exit, Stop};
use crate::mem::tlb::{AccessKind, MmuMode};
use crate::mem::walk::WalkFault;
use crate::phys::PhysPage;
use crate::vmx::VmExit;

/// EPC operands of a leaf at most: a page, its SECS and a version array.
const MAX_OPERANDS: usize = 4;

/// A processor as one leaf sees it: its memory, its events and what its CPUID says.
#[derive(Debug)]
pub struct Port<'a> {
    cpu: &'a mut Cpu,
    mode: MmuMode,
    /// Whether the leaf exited and the owner carries it out.
    exited: bool,
    /// A stop that is not a fault of the leaf: a device access of its operands.
    other: Option<Stop>,
    resolved: [Option<EpcIndex>; MAX_OPERANDS],
    /// Whether EPC operands trigger data breakpoints.
    watched: bool,
    /// The operand that was last given a linear address: the address and its bytes.
    operand: (u64, usize),
}

impl<'a> Port<'a> {
    /// For an ENCLS or ENCLV leaf (CPL 0) or an ENCLU leaf (CPL 3), by the processor's CPL. The
    /// operands of ENCLU leaves inside an enclave are checked against the EPCM by the leaf itself.
    pub(crate) fn new(cpu: &'a mut Cpu) -> Self {
        let mode = match cpu.run.mmu_mode {
            MmuMode::Enclave => MmuMode::User,
            mode => mode,
        };
        let resolved = [None; MAX_OPERANDS];
        Self { cpu, mode, exited: false, other: None, resolved, watched: false, operand: (0, 0) }
    }

    /// For an ENCLS leaf that exited ([`Exit::Encls`]) and that the owner carries out, with the
    /// registers [`Cpu::leaf_registers`]. What ENCLS checks only after it may have exited is #GP(0)
    /// at the first operand. Device registers read as ones: SGX structures are memory.
    pub fn after_exit(cpu: &'a mut Cpu) -> Self {
        Self { exited: true, ..Self::new(cpu) }
    }

    /// Makes accesses to EPC operands trigger data breakpoints, as those of EREPORT and EGETKEY do
    /// after an entry that is opted in to debugging (SDM Vol. 3D, 40.3.4).
    pub(crate) fn watch_operands(&mut self) {
        self.watched = true;
    }

    /// After the leaf completed: drops code decoded from the EPC pages that it may have written.
    pub fn written(&self) {
        for index in self.resolved.iter().flatten() {
            self.cpu.epc_written(*index);
        }
    }

    /// What a stopped leaf means to the engine.
    pub(crate) fn stop(self, stop: LeafStop) -> Stop {
        if let Some(other) = self.other {
            return other;
        }
        match stop {
            LeafStop::Fault(exception) => self.cpu.sgx_fault(exception),
            LeafStop::EpcMiss { gpa } => self.cpu.exit_with(Exit::EpcMiss { gpa }),
            LeafStop::Conflict(conflict) if self.guest_virtualizes() => {
                let exit = conflict_exit(self.cpu, conflict);
                self.cpu.vm_exit(exit)
            }
            // Whoever holds the page lets go of it soon: look at events and try again.
            LeafStop::Retry | LeafStop::Conflict(_) => Stop::ALONE,
        }
    }

    /// Whether an access took place; `false` for one to device registers after an exit.
    fn accessed(&mut self, outcome: Exec) -> Result<bool, LeafStop> {
        if self.exited && outcome == Err(Stop::EXIT) {
            self.cpu.run.exit = None;
            return Ok(false);
        }
        self.convert(outcome).map(|()| true)
    }

    /// Whether the guest's own hypervisor has conflicts of leaves exit.
    fn guest_virtualizes(&self) -> bool {
        let control = SecondaryControls::EPC_VIRTUALIZATION;
        self.cpu.guest_controls().is_some_and(|controls| controls.secondary.contains(control))
    }

    fn convert<T>(&mut self, outcome: Exec<T>) -> Result<T, LeafStop> {
        outcome.map_err(|stop| match (stop, self.cpu.run.fault.take()) {
            (Stop::FAULT, Some(exception)) => LeafStop::Fault(exception),
            (stop, _) => {
                self.other = Some(stop);
                LeafStop::Retry
            }
        })
    }
}

/// The VM exit SGX_CONFLICT (SDM Vol. 3D, 39.5.4, and the leaves' pseudo-code).
fn conflict_exit(cpu: &mut Cpu, conflict: Conflict) -> VmExit {
    let error = u64::from(SgxStatus::EpcPageConflict as u32) << sgx_conflict::ERROR_SHIFT;
    let (qualification, linear, physical) = match conflict {
        Conflict::TrackingResource { context } => (sgx_conflict::TRACKING_RESOURCE, 0, context),
        Conflict::TrackingReference { context } => (sgx_conflict::TRACKING_REFERENCE, 0, context),
        Conflict::PageException { la } => {
            (sgx_conflict::EPC_PAGE_EXCEPTION, la.0, cpu.guest_physical_page(la.0))
        }
        Conflict::PageError { la } => {
            (sgx_conflict::EPC_PAGE_ERROR | error, la.0, cpu.guest_physical_page(la.0))
        }
    };
    VmExit { linear, physical, ..VmExit::new(ExitReason::SgxConflict) }.qualified(qualification)
}

impl LeafPort for Port<'_> {
    fn linear(&mut self, ea: u64, len: u64) -> Result<La, LeafStop> {
        if self.exited && !self.cpu.reaches_operands() {
            return Err(LeafStop::Fault(Exception::gp(0)));
        }
        self.operand = (ea, usize::try_from(len).unwrap_or(usize::MAX));
        if self.cpu.run.mode.is_64() {
            return if is_canonical(ea) {
                Ok(La(ea))
            } else {
                Err(LeafStop::Fault(Exception::gp(0)))
            };
        }
        let size = self.operand.1;
        let la = self.cpu.segmented(seg::DS, ea & 0xffff_ffff, size, AccessKind::Read);
        let la = self.convert(la)?;
        self.operand.0 = la;
        Ok(La(la))
    }

    fn read(&mut self, la: La, buf: &mut [u8]) -> Result<(), LeafStop> {
        let outcome = self.cpu.read_bytes(la.0, buf, self.mode);
        if !self.accessed(outcome)? {
            buf.fill(0xff);
        }
        Ok(())
    }

    fn write(&mut self, la: La, bytes: &[u8]) -> Result<(), LeafStop> {
        let outcome = self.cpu.write_bytes(la.0, bytes, self.mode);
        self.accessed(outcome).map(drop)
    }

    fn resolve_epc(&mut self, la: La, access: EpcAccess) -> Result<Option<EpcIndex>, LeafStop> {
        let kind = match access {
            EpcAccess::Read => AccessKind::Read,
            EpcAccess::Write => AccessKind::Write,
        };
        let mapping = match self.cpu.walk(la.0, kind, self.mode) {
            Ok(mapping) => mapping,
            Err(WalkFault::Page(code)) => {
                return Err(LeafStop::Fault(Exception::pf(la.0, code)));
            }
            Err(WalkFault::Exit(exit)) => {
                self.other = Some(self.cpu.vm_exit(exit));
                return Err(LeafStop::Retry);
            }
        };
        match self.cpu.package.memory.page(mapping.gpa) {
            PhysPage::Epc(index) => {
                let (start, len) = self.operand;
                if self.watched && start == la.0 {
                    let checked = self.cpu.check_access(start, len, kind, self.mode);
                    self.convert(checked)?;
                }
                if access == EpcAccess::Write {
                    // A page that the leaf makes valid can be fetched from before `written`: code
                    // of the page that was in its place is gone by then.
                    self.cpu.epc_written(index);
                }
                let slot = self.resolved.iter_mut().find(|slot| slot.is_none());
                debug_assert!(slot.is_some(), "a leaf has more operands in the EPC");
                if let Some(slot) = slot {
                    *slot = Some(index);
                }
                Ok(Some(index))
            }
            PhysPage::EpcUnbacked => Err(LeafStop::EpcMiss { gpa: mapping.gpa }),
            _ => Ok(None),
        }
    }

    fn event_pending(&mut self) -> bool {
        self.cpu.event_pending()
    }

    fn epc_virtualization(&self) -> bool {
        self.cpu.ctl.epc_virtualization || self.guest_virtualizes()
    }

    fn capabilities(&self) -> Capabilities {
        self.cpu.ctl.features.sgx
    }

    fn le_pubkey_hash(&self) -> [u8; 32] {
        self.cpu.ctl.le_pubkey_hash
    }
}
