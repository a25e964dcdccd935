//! One software processor: what it leaves to its owner, and what the machine has to do.

use std::sync::Arc;

use cloister_cpu::segment::{Rights, Segment, TableRegister, seg};
use cloister_cpu::{Exit, SgxPort};
use cloister_virt::{RdmsrOutcome, SgxVcpu, SgxVm, WrmsrOutcome, encls};
use cloister_x86::regs::Rflags;
use cloister_x86::{Exception, Gpa};

use super::msr::MsrBank;
use crate::accel::{Vcpu, VcpuError, VmEvent};
use crate::cpuid::{CpuidState, GuestCpuid};
use cloister_boot::{self as boot, EntryState};

/// Encodings of registers that boot protocols pass something in.
const RBX: usize = 3;
const RSP: usize = 4;
const RSI: usize = 6;

/// The last event, if the processor waits for the machine to have dealt with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pending {
    Nothing,
    /// A device access of this many bytes, for which `data` has or gets the value.
    Access(usize),
}

/// What a processor has of SGX.
struct Sgx {
    vm: Arc<SgxVm>,
    vcpu: SgxVcpu,
}

/// A software processor.
pub(super) struct SoftVcpu {
    vcpu: cloister_cpu::Vcpu,
    id: u32,
    msrs: MsrBank,
    cpuid: GuestCpuid,
    sgx: Option<Sgx>,
    pending: Pending,
    /// Little-endian value of a device access.
    data: [u8; 8],
}

impl SoftVcpu {
    pub(super) fn new(
        mut vcpu: cloister_cpu::Vcpu,
        id: u32,
        cpuid: GuestCpuid,
        sgx: Option<Arc<SgxVm>>,
        entry: Option<&EntryState>,
    ) -> Self {
        if let Some(entry) = entry {
            enter(&mut vcpu, entry);
        }
        vcpu.cpu.enclv_exiting = sgx.as_ref().and_then(|vm| vm.enclv_exiting());
        let sgx = sgx.map(|vm| Sgx { vcpu: vm.new_vcpu(), vm });
        let (pending, data) = (Pending::Nothing, [0; 8]);
        let mut this = Self { vcpu, id, msrs: MsrBank::default(), cpuid, sgx, pending, data };
        this.update_sgx();
        this
    }

    /// Hands the processor what the machine made of the last event.
    fn resume(&mut self) {
        if let Pending::Access(size) = std::mem::replace(&mut self.pending, Pending::Nothing) {
            self.data[size..].fill(0);
            self.vcpu.complete(u64::from_le_bytes(self.data));
        }
    }

    /// Notes a device access and lends its bytes.
    fn access(&mut self, size: u8, value: u64) -> &mut [u8] {
        let size = usize::from(size).min(self.data.len());
        self.pending = Pending::Access(size);
        self.data = value.to_le_bytes();
        &mut self.data[..size]
    }

    fn answer_cpuid(&mut self, leaf: u32, subleaf: u32) {
        let cpu = &self.vcpu.cpu;
        let state = CpuidState {
            apic_id: self.id,
            apic_enabled: cpu.apic.enabled(),
            cr4: cpu.cr4,
            xcr0: cpu.xcr0,
            leaves_limited: self.msrs.limits_cpuid(),
            execute_disable: self.msrs.has_execute_disable(),
        };
        self.vcpu.finish_cpuid(self.cpuid.query(leaf, subleaf, &state));
    }

    /// # Errors
    ///
    /// The #GP could not be delivered.
    fn answer_rdmsr(&mut self, index: u32) -> Result<(), Exit> {
        let sgx = self.sgx.as_ref().map(|sgx| sgx.vcpu.rdmsr(sgx.vm.cpuid(), index));
        let value = match sgx {
            Some(RdmsrOutcome::Value(value)) => Some(value),
            Some(RdmsrOutcome::GeneralProtection) => None,
            Some(RdmsrOutcome::NotHandled) | None => self.msrs.read(index),
        };
        match value {
            Some(value) => {
                self.vcpu.finish_rdmsr(value);
                Ok(())
            }
            None => {
                tracing::debug!(cpu = self.id, msr = format_args!("{index:#x}"), "RDMSR faults");
                self.vcpu.inject(Exception::gp(0))
            }
        }
    }

    /// # Errors
    ///
    /// The #GP could not be delivered.
    fn answer_wrmsr(&mut self, index: u32, value: u64) -> Result<(), Exit> {
        let sgx = self.sgx.as_mut().map(|sgx| sgx.vcpu.wrmsr(sgx.vm.cpuid(), index, value));
        let written = match sgx {
            Some(WrmsrOutcome::Handled) => {
                self.update_sgx();
                true
            }
            Some(WrmsrOutcome::GeneralProtection) => false,
            Some(WrmsrOutcome::NotHandled) | None => self.msrs.write(index, value),
        };
        if written {
            self.vcpu.cpu.features.execute_disable = self.msrs.has_execute_disable();
            self.vcpu.skip();
            return Ok(());
        }
        tracing::debug!(
            cpu = self.id,
            msr = format_args!("{index:#x}"),
            value = format_args!("{value:#x}"),
            "WRMSR faults"
        );
        self.vcpu.inject(Exception::gp(0))
    }

    /// Logs what a kernel developer asks for first.
    fn log_state(&self, reason: &str) {
        let cpu = &self.vcpu.cpu;
        tracing::debug!(
            cpu = self.id,
            rip = format_args!("{:#x}", cpu.rip),
            cpl = cpu.cpl,
            cr0 = ?cpu.cr0,
            cr2 = format_args!("{:#x}", cpu.cr2),
            cr3 = format_args!("{:#x}", cpu.cr3),
            cr4 = ?cpu.cr4,
            gpr = format_args!("{:x?}", &cpu.gpr[..16]),
            "{reason}"
        );
    }

    /// Tells the processor what follows from its SGX MSRs: the launch-control hash, and from
    /// policy and FEATURE_CONTROL, which ENCLS leaves exit.
    fn update_sgx(&mut self) {
        if let Some(sgx) = &self.sgx {
            let cpu = &mut self.vcpu.cpu;
            cpu.encls_exiting = sgx.vm.encls_exiting(&sgx.vcpu);
            cpu.sgx_enabled = sgx.vcpu.sgx_enabled();
            cpu.le_pubkey_hash = sgx.vcpu.le_hash();
        }
    }

    /// An ENCLS leaf that policy has a say in. The inner result is as for the other answers.
    ///
    /// # Errors
    ///
    /// There is no EPC for a page that the leaf needs.
    fn answer_encls(&mut self) -> Result<Result<(), Exit>, VcpuError> {
        let Some(sgx) = &self.sgx else {
            // Without SGX no bit of the ENCLS-exiting bitmap is set.
            return Ok(self.vcpu.inject(Exception::ud()));
        };
        let regs = self.vcpu.cpu.leaf_registers();
        let mut port = SgxPort::after_exit(&mut self.vcpu.cpu);
        match encls::handle(&sgx.vm, &sgx.vcpu, &mut port, &regs) {
            encls::Action::Retire(outcome) => {
                port.written();
                self.vcpu.cpu.apply_leaf(&outcome);
                self.vcpu.skip();
                Ok(Ok(()))
            }
            encls::Action::Inject(exception) => Ok(self.vcpu.inject(exception)),
            encls::Action::Retry => Ok(Ok(())),
            encls::Action::Exhausted(gpa, reason) => Err(VcpuError::EpcExhausted { gpa, reason }),
        }
    }

    /// A page of virtual EPC that a leaf needs and that has no EPC behind it.
    ///
    /// # Errors
    ///
    /// There is none.
    fn back_epc(&self, gpa: Gpa) -> Result<(), VcpuError> {
        match self.sgx.as_ref().and_then(|sgx| sgx.vm.populate(gpa)) {
            Some(Err(reason)) => Err(VcpuError::EpcExhausted { gpa, reason }),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self) -> Result<VmEvent<'_>, VcpuError> {
        self.resume();
        let mut exit = self.vcpu.run();
        loop {
            // What the processor's owner answers itself yields `Ok`; then the processor goes on.
            let answered = match exit {
                Exit::IoIn { port, size } => {
                    return Ok(VmEvent::IoRead { port, data: self.access(size, 0) });
                }
                Exit::IoOut { port, size, value } => {
                    let data = self.access(size, value.into());
                    return Ok(VmEvent::IoWrite { port, data });
                }
                Exit::MmioRead { gpa, size } => {
                    return Ok(VmEvent::MmioRead { gpa: gpa.0, data: self.access(size, 0) });
                }
                Exit::MmioWrite { gpa, size, value } => {
                    let data = self.access(size, value);
                    return Ok(VmEvent::MmioWrite { gpa: gpa.0, data });
                }
                Exit::Eoi { vector } => return Ok(VmEvent::EndOfInterrupt { vector }),
                Exit::TripleFault => {
                    self.log_state("triple fault");
                    return Ok(VmEvent::TripleFault);
                }
                Exit::Init => return Ok(VmEvent::Init),
                Exit::Requested => return Ok(VmEvent::Interrupted),
                Exit::Cpuid { leaf, subleaf } => {
                    self.answer_cpuid(leaf, subleaf);
                    Ok(())
                }
                Exit::Rdmsr { index } => self.answer_rdmsr(index),
                Exit::Wrmsr { index, value } => self.answer_wrmsr(index, value),
                Exit::Hlt => {
                    self.vcpu.wait();
                    Ok(())
                }
                Exit::Encls { .. } => self.answer_encls()?,
                // No bit of the ENCLV-exiting bitmap is ever set.
                Exit::Enclv { .. } => self.vcpu.inject(Exception::ud()),
                // The leaf runs again.
                Exit::EpcMiss { gpa } => {
                    self.back_epc(gpa)?;
                    Ok(())
                }
            };
            exit = match answered {
                Ok(()) => self.vcpu.run(),
                Err(exit) => exit,
            };
        }
    }
}

/// Puts a processor that was just reset where a boot protocol enters the kernel.
fn enter(vcpu: &mut cloister_cpu::Vcpu, entry: &EntryState) {
    let cpu = &mut vcpu.cpu;
    cpu.rip = entry.rip;
    cpu.gpr[RBX] = entry.rbx;
    cpu.gpr[RSP] = entry.rsp;
    cpu.gpr[RSI] = entry.rsi;
    cpu.cr0 = entry.cr0;
    cpu.cr3 = entry.cr3;
    cpu.cr4 = entry.cr4;
    cpu.efer = entry.efer;
    cpu.segs[seg::CS] = segment(entry.cs);
    for index in [seg::DS, seg::ES, seg::FS, seg::GS, seg::SS] {
        cpu.segs[index] = segment(entry.data);
    }
    cpu.segs[seg::TR] = segment(entry.tr);
    cpu.segs[seg::LDTR] = Segment { rights: Rights(Rights::UNUSABLE), ..Segment::default() };
    cpu.gdtr = TableRegister { base: entry.gdt_base, limit: entry.gdt_limit };
    cpu.idtr = TableRegister::default();
    cpu.set_rflags(Rflags::empty().bits());
    cpu.update_mode();
}

fn segment(from: boot::Segment) -> Segment {
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        rights: Rights(u32::from(from.rights)),
    }
}
