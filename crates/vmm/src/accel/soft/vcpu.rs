//! One software processor: what it leaves to its owner, and what the machine has to do.

use std::sync::Arc;

use cloister_boot::EntryState;
use cloister_cpu::{ArchState, DebugPoints, Exit, SgxPort};
use cloister_virt::encls::Action;
use cloister_virt::{RdmsrOutcome, SgxVcpu, SgxVm, WrmsrOutcome};
use cloister_x86::{Exception, Gpa};

use super::msr::MsrBank;
use super::translators::Translators;
use crate::accel::entry::at_entry;
use crate::accel::{Vcpu, VcpuDebug, VcpuError, VcpuState, VmEvent};
use crate::cpuid::{CpuidState, GuestCpuid};

/// The last event, if the processor waits for the machine to have dealt with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pending {
    Nothing,
    /// A device access of this many bytes, for which `data` has or gets the value.
    Access(usize),
}

/// A software processor.
pub(in crate::accel) struct SoftVcpu {
    pub(super) vcpu: cloister_cpu::Vcpu,
    id: u32,
    msrs: MsrBank,
    cpuid: GuestCpuid,
    pub(super) sgx: Option<SgxVcpu>,
    pending: Pending,
    /// Little-endian value of a device access.
    pub(super) data: [u8; 8],
    /// Whose translator the processor has.
    translators: Translators,
}

impl Drop for SoftVcpu {
    fn drop(&mut self) {
        if let Some(translator) = self.vcpu.take_translator() {
            self.translators.put_back(self.id, translator);
        }
        let counts = self.vcpu.statistics().counts();
        tracing::debug!(
            cpu = self.id,
            blocks = counts.blocks,
            instructions = counts.instructions,
            guest_bytes = counts.guest_bytes,
            code_bytes = counts.code_bytes,
            microseconds = counts.nanoseconds / 1000,
            evictions = counts.evictions,
            entries = counts.entries,
            interpreted_runs = counts.interpreted_runs,
            "translated"
        );
    }
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
            vcpu.cpu.set_state(at_entry(entry));
        }
        vcpu.cpu.ctl.enclv_exiting = sgx.as_ref().and_then(|vm| vm.enclv_exiting());
        let vmx = vcpu.cpu.ctl.features.vmx;
        let sgx = sgx.map(SgxVcpu::new).map(|sgx| if vmx { sgx.with_vmx() } else { sgx });
        vcpu.cpu.ctl.vmx_enabled = vmx;
        let (pending, data) = (Pending::Nothing, [0; 8]);
        let (msrs, translators) = (MsrBank::new(vmx), Translators::default());
        let mut this = Self { vcpu, id, msrs, cpuid, sgx, pending, data, translators };
        this.update_sgx();
        this
    }

    /// Has the processor's code translated, if its translator is there.
    pub(super) fn translate(&mut self, translators: Translators) {
        if let Some(translator) = translators.take(self.id) {
            self.vcpu.set_translator(translator, translators.hot_from());
        }
        translators.show(self.id, self.vcpu.statistics());
        self.translators = translators;
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
            apic_enabled: cpu.apic_enabled(),
            cr4: cpu.state().cr4,
            xcr0: cpu.state().xcr0,
            leaves_limited: self.msrs.limits_cpuid(),
            execute_disable: self.msrs.has_execute_disable(),
        };
        self.vcpu.finish_cpuid(self.cpuid.query(leaf, subleaf, &state));
    }

    /// # Errors
    ///
    /// The #GP could not be delivered.
    fn answer_rdmsr(&mut self, index: u32) -> Result<(), Exit> {
        let sgx = self.sgx.as_ref().map(|sgx| sgx.rdmsr(index));
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
        let sgx = self.sgx.as_mut().map(|sgx| sgx.wrmsr(index, value));
        let written = match sgx {
            Some(WrmsrOutcome::Handled) => {
                self.update_sgx();
                true
            }
            Some(WrmsrOutcome::GeneralProtection) => false,
            Some(WrmsrOutcome::NotHandled) | None => self.msrs.write(index, value),
        };
        if written {
            self.vcpu.cpu.ctl.features.execute_disable = self.msrs.has_execute_disable();
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
        let state = self.vcpu.cpu.state();
        tracing::debug!(
            cpu = self.id,
            rip = format_args!("{:#x}", state.rip),
            cpl = state.cpl,
            cr0 = ?state.cr0,
            cr2 = format_args!("{:#x}", state.cr2),
            cr3 = format_args!("{:#x}", state.cr3),
            cr4 = ?state.cr4,
            gpr = format_args!("{:x?}", state.gpr.registers()),
            "{reason}"
        );
    }

    /// Tells the processor what follows from its SGX MSRs: the launch-control hash, from policy and
    /// FEATURE_CONTROL which ENCLS leaves exit, and whether VMXON runs.
    pub(super) fn update_sgx(&mut self) {
        if let Some(sgx) = &self.sgx {
            let ctl = &mut self.vcpu.cpu.ctl;
            ctl.encls_exiting = sgx.encls_exiting();
            ctl.sgx_enabled = sgx.sgx_enabled();
            ctl.vmx_enabled = sgx.vmx_enabled();
            ctl.le_pubkey_hash = sgx.le_hash();
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
        match sgx.handle_encls(&mut port, &regs) {
            Action::Retire(outcome) => {
                port.written();
                self.vcpu.cpu.apply_leaf(&outcome);
                self.vcpu.skip();
                Ok(Ok(()))
            }
            Action::Inject(exception) => Ok(self.vcpu.inject(exception)),
            Action::Retry => Ok(self.vcpu.leave_guest()),
            Action::Exhausted(gpa, reason) => Err(VcpuError::EpcExhausted { gpa, reason }),
        }
    }

    /// A page of virtual EPC that a leaf needs and that is not backed yet.
    ///
    /// # Errors
    ///
    /// There is none.
    fn back_epc(&self, gpa: Gpa) -> Result<(), VcpuError> {
        match self.sgx.as_ref().and_then(|sgx| sgx.vm().populate(gpa)) {
            Some(Err(reason)) => Err(VcpuError::EpcExhausted { gpa, reason }),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

impl VcpuState for SoftVcpu {
    fn state(&self) -> Result<ArchState, VcpuError> {
        Ok(self.vcpu.cpu.state().clone())
    }

    fn set_state(&mut self, state: ArchState) -> Result<(), VcpuError> {
        debug_assert_eq!(self.pending, Pending::Nothing);
        self.vcpu.cpu.set_state(state);
        Ok(())
    }
}

impl VcpuDebug for SoftVcpu {
    fn set_debug_points(&mut self, points: Option<&DebugPoints>) -> Result<(), VcpuError> {
        self.vcpu.set_debug_points(points);
        Ok(())
    }

    fn debug_step(&mut self) -> Result<(), VcpuError> {
        self.vcpu.debug_step();
        Ok(())
    }

    fn debug_pause(&mut self) -> Result<(), VcpuError> {
        self.vcpu.debug_pause();
        Ok(())
    }

    fn debug_read(&self, la: u64, data: &mut [u8]) -> usize {
        self.vcpu.cpu.debug_read(la, data)
    }

    fn debug_write(&mut self, la: u64, data: &[u8]) -> bool {
        self.vcpu.cpu.debug_write(la, data)
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
                Exit::Debug(stop) => return Ok(VmEvent::Debug(stop)),
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

#[cfg(test)]
mod tests {
    use cloister_cpu::testing::enable_apic;
    use cloister_cpu::{Cpu, Features, Package, Shadow};
    use cloister_sgx::encls::leaf;
    use cloister_sgx::layout::SigStruct;
    use cloister_sgx::{Platform, PlatformConfig, PlatformIdentity, SgxStatus};
    use cloister_virt::{EpcPool, SectionConfig, SgxCpuid};
    use cloister_x86::regs::{Cr0, Cr4, Efer, Rflags};
    use cloister_x86::{Gpr, PAGE_SIZE, Rights, Segment};
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::super::memory::SoftMemory;
    use super::*;
    use crate::accel::GuestSgx;
    use crate::cpuid::{CpuModel, CpuidTable, TSC_HZ};

    const CODE: u64 = 0x1000;
    const DIRECTORY: u64 = 0x2000;
    const SIGSTRUCT: u64 = 0x3000;
    const TOKEN: u64 = 0x4000;
    /// The EPC, physical and linear.
    const EPC: u64 = 0x4000_0000;
    /// A data segment, a code segment of 32 bits: flat.
    const DATA: Rights = Rights(0xc093);
    const CODE32: Rights = Rights(0xc09b);
    /// Messages to the local APIC.
    const INTERRUPT: u32 = 0x52;
    const NMI: u32 = 4 << 8;

    /// A guest in 32-bit protected mode, right after an instruction that holds off interrupts and
    /// about to execute EINIT with a SIGSTRUCT whose header alone is valid.
    fn before_einit() -> SoftVcpu {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        // ENCLS; OUT 80H, AL.
        ram.write_slice(&[0x0f, 0x01, 0xcf, 0xe6, 0x80], GuestAddress(CODE)).unwrap();
        // Large pages, present and writable.
        ram.write_obj(0x83_u32, GuestAddress(DIRECTORY)).unwrap();
        ram.write_obj(EPC as u32 | 0x83, GuestAddress(DIRECTORY + (EPC >> 22) * 4)).unwrap();
        let mut sigstruct = SigStruct::new_zeroed();
        sigstruct.header = SigStruct::HEADER;
        sigstruct.header2 = SigStruct::HEADER2;
        sigstruct.exponent = 3.into();
        ram.write_slice(sigstruct.as_bytes(), GuestAddress(SIGSTRUCT)).unwrap();

        let config = PlatformConfig::single(4, PlatformIdentity::from_seed(&[1; 32]));
        let cpuid = SgxCpuid::all_of(&config.capabilities, None);
        let platform = Arc::new(Platform::new(config).unwrap());
        let section =
            SectionConfig { base: Gpa(EPC), size: 4 * PAGE_SIZE, node: 0, preallocate: false };
        let account = EpcPool::new(platform.clone()).unlimited("vm");
        let sgx = Arc::new(SgxVm::new(account, &[section], cpuid).unwrap());
        let memory = SoftMemory::new(&ram, Some(sgx.clone())).unwrap();
        let package = Package::new(Arc::new(memory), Some(platform), 1, TSC_HZ);
        let features = Features { sgx: cpuid.capabilities, ..Features::default() };
        let flat = |rights| Segment::flat(8, rights);
        let entry = EntryState {
            rip: CODE,
            rsp: 0x8000,
            rbx: SIGSTRUCT,
            rsi: 0,
            cr0: Cr0::PE | Cr0::PG | Cr0::ET,
            cr3: DIRECTORY,
            cr4: Cr4::PSE,
            efer: Efer::empty(),
            cs: flat(CODE32),
            data: flat(DATA),
            tr: flat(Rights(0x8b)),
            gdt_base: 0,
            gdt_limit: 0,
        };
        let table = CpuidTable::new(CpuModel::software(features.xcr0), 1);
        let answers = GuestCpuid::new(table, Some(GuestSgx::Soft(sgx.clone())));
        let vcpu = cloister_cpu::Vcpu::new(package, 0, features);
        let mut this = SoftVcpu::new(vcpu, 0, answers, Some(sgx), Some(&entry));
        let cpu = &mut this.vcpu.cpu;
        // The local APIC on.
        enable_apic(cpu);
        change(cpu, |state| {
            state.gpr[Gpr::Rax] = leaf::EINIT.into();
            (state.gpr[Gpr::Rcx], state.gpr[Gpr::Rdx]) = (EPC, TOKEN);
            state.shadow = Shadow::Sti;
        });
        this
    }

    #[test]
    fn a_state_that_is_put_back_is_the_state_that_was_taken() {
        let mut vcpu = before_einit();
        let taken = vcpu.state().unwrap();
        let mut other = taken.clone();
        other.gpr[Gpr::Rax] = !0;
        (other.rip, other.cr0) = (0, Cr0::ET);

        vcpu.set_state(other.clone()).unwrap();
        assert_eq!(vcpu.state().unwrap(), other);
        vcpu.set_state(taken.clone()).unwrap();

        assert_eq!(vcpu.state().unwrap(), taken);
        // It goes on from there: paging and the instruction at RIP are what they were.
        let invalid = SgxStatus::InvalidSignature;
        assert_eq!(reported(vcpu, |_| {}), invalid.rax());
    }

    /// What happens to a processor before it executes EINIT.
    type Prepare = fn(&mut Cpu);

    /// What EINIT reports in RAX. What comes after it ends the run: OUT, or an event, which no
    /// handler takes.
    fn reported(mut vcpu: SoftVcpu, prepare: Prepare) -> u64 {
        prepare(&mut vcpu.vcpu.cpu);
        let event = vcpu.run().unwrap();
        assert!(matches!(event, VmEvent::IoWrite { .. } | VmEvent::TripleFault), "{event:?}");
        vcpu.vcpu.cpu.state().gpr[Gpr::Rax]
    }

    fn change(cpu: &mut Cpu, change: impl FnOnce(&mut ArchState)) {
        let mut state = cpu.state().clone();
        change(&mut state);
        cpu.set_state(state);
    }

    fn send(cpu: &Cpu, message: u32) {
        cpu.package().deliver_msi(0xfee0_0000, message);
    }

    #[test]
    fn einit_gives_way_to_the_same_events_whether_it_exits_or_not() {
        let (gives_way, goes_on) = (SgxStatus::UnmaskedEvent, SgxStatus::InvalidSignature);
        let table: [(&str, Prepare, SgxStatus); 5] = [
            ("no event", |_| {}, goes_on),
            ("an NMI with IF clear", |cpu| send(cpu, NMI), gives_way),
            (
                "an NMI while another is handled",
                |cpu| {
                    change(cpu, |state| state.nmi_blocked = true);
                    send(cpu, NMI);
                },
                goes_on,
            ),
            ("an interrupt with IF clear", |cpu| send(cpu, INTERRUPT), goes_on),
            (
                "an interrupt with IF set",
                |cpu| {
                    change(cpu, |state| state.system_flags.insert(Rflags::IF));
                    send(cpu, INTERRUPT);
                },
                gives_way,
            ),
        ];
        for (name, prepare, expected) in table {
            let exits = before_einit();
            let mut stays = before_einit();
            assert_ne!(exits.vcpu.cpu.ctl.encls_exiting & 1 << leaf::EINIT, 0);
            stays.vcpu.cpu.ctl.encls_exiting = 0;

            let statuses = [reported(exits, prepare), reported(stays, prepare)];

            assert_eq!(statuses, [expected.rax(); 2], "{name}");
        }
    }
}
