//! What must hold after a VM entry, and after the exit that it came to.

use cloister_x86::Gpr;
use cloister_x86::regs::{Cr0, Rflags};
use cloister_x86::segment::{Rights, seg};
use cloister_x86::vmcs::{Field, Kind};
use cloister_x86::vmx::{EXIT_REASON_ENTRY_FAILURE, EntryControls, ExitReason, interruption};

use super::contents::{ENTER_LENGTH, RESUME};
use super::hypervisor::VMCS;
use crate::cpu::Cpu;
use crate::state::ArchState;
use crate::vmx::region::SIZE;

/// A processor's region before an entry, to be compared with what it is afterwards.
pub(super) struct Before {
    arch: ArchState,
    fields: Vec<u64>,
    launched: bool,
}

impl Before {
    pub(super) fn new(cpu: &Cpu) -> Self {
        let vmcs = cpu.vmcs(VMCS);
        Self {
            arch: cpu.arch.clone(),
            fields: Field::ALL.iter().map(|&field| vmcs.read(field)).collect(),
            launched: vmcs.is_launched(),
        }
    }

    pub(super) fn field(&self, field: Field) -> u64 {
        self.fields[Field::ALL.binary_search(&field).expect("fields are in order")]
    }

    /// Whether the fields that `kept` names are as they were.
    fn assert_fields(&self, cpu: &Cpu, kept: impl Fn(Field) -> bool) {
        let vmcs = cpu.vmcs(VMCS);
        for (&field, &before) in Field::ALL.iter().zip(&self.fields) {
            assert!(!kept(field) || vmcs.read(field) == before, "{field:x?} was {before:#x}");
        }
    }

    /// Nothing but the flags, RIP and the error number has changed.
    pub(super) fn assert_refused(&self, cpu: &Cpu) {
        let error = cpu.vmcs(VMCS).read(Field::INSTRUCTION_ERROR);
        match (self.arch.rip == RESUME, self.launched) {
            (false, true) => assert_eq!(error, 4),
            (true, false) => assert_eq!(error, 5),
            _ => assert!(matches!(error, 7 | 8), "{error}"),
        }
        assert_eq!(cpu.arch.rflags() & 0x8d5, 0x40);
        let mut expected = self.arch.clone();
        expected.rip += ENTER_LENGTH;
        expected.flags = cpu.arch.flags;
        assert_eq!(cpu.arch, expected);
        assert_eq!(cpu.vmcs(VMCS).is_launched(), self.launched);
        self.assert_fields(cpu, |field| field != Field::INSTRUCTION_ERROR);
    }

    /// Host state was loaded, and nothing saved.
    pub(super) fn assert_failed(&self, cpu: &Cpu) {
        let reason = cpu.vmcs(VMCS).read_32(Field::EXIT_REASON) & !EXIT_REASON_ENTRY_FAILURE;
        assert!(matches!(reason, 33 | 34), "{reason}");
        assert_eq!(cpu.vmcs(VMCS).is_launched(), self.launched);
        self.assert_fields(cpu, |field| field.kind() != Kind::ExitInformation);
        self.assert_host(cpu);
    }

    /// The processor is where the VMCS says that an exit leads.
    pub(super) fn assert_host(&self, cpu: &Cpu) {
        let arch = &cpu.arch;
        // Neither these nor the reserved bits are loaded (SDM Vol. 3C, 27.5.1).
        let loaded = (Cr0::all() - (Cr0::ET | Cr0::CD | Cr0::NW)).bits();
        assert!(arch.vmx.guest.is_none());
        assert_eq!((arch.cr0.bits() ^ self.field(Field::HOST_CR0)) & loaded, 0);
        assert_eq!(arch.cr3, self.field(Field::HOST_CR3));
        assert_eq!(arch.cr4.bits(), self.field(Field::HOST_CR4));
        assert_eq!(arch.gpr[Gpr::Rsp], self.field(Field::HOST_RSP));
        assert_eq!(arch.rip, self.field(Field::HOST_RIP));
        assert_eq!((arch.rflags(), arch.cpl, arch.dr7), (2, 0, 0x400));
        for (n, segment) in (0..).zip(&arch.segs[..7]) {
            let selector = self.field(Field::HOST_ES_SELECTOR.plus(n));
            assert_eq!(u64::from(segment.selector), selector, "{n}");
        }
        assert_eq!(arch.segs[seg::FS].base, self.field(Field::HOST_FS_BASE));
        assert_eq!(arch.segs[seg::GS].base, self.field(Field::HOST_GS_BASE));
        assert_eq!(arch.segs[seg::TR].base, self.field(Field::HOST_TR_BASE));
        assert_eq!(arch.segs[seg::LDTR].rights, Rights(Rights::UNUSABLE));
        assert_eq!((arch.gdtr.base, arch.gdtr.limit), (self.field(Field::HOST_GDTR_BASE), 0xffff));
        assert_eq!((arch.idtr.base, arch.idtr.limit), (self.field(Field::HOST_IDTR_BASE), 0xffff));
        if self.field(Field::EXIT_MSR_LOAD_COUNT) == 0 {
            assert_eq!(arch.msrs.sysenter_esp, self.field(Field::HOST_SYSENTER_ESP));
            assert_eq!(arch.msrs.sysenter_eip, self.field(Field::HOST_SYSENTER_EIP));
        }
    }

    /// Whether the list of MSRs that exits store lies over the VMCS.
    fn stores_over_vmcs(&self) -> bool {
        let start = self.field(Field::EXIT_MSR_STORE_ADDRESS);
        let bytes = 16 * self.field(Field::EXIT_MSR_STORE_COUNT);
        start < VMCS + SIZE as u64 && VMCS < start.saturating_add(bytes)
    }

    /// The exit that was just reported saved `guest`, but for what was delivered on the way to it.
    pub(super) fn assert_saved(&self, cpu: &Cpu, guest: &ArchState) {
        let vmcs = cpu.vmcs(VMCS);
        let under_delivery = vmcs.read_32(Field::IDT_VECTORING) & interruption::VALID != 0
            || vmcs.read(Field::EXIT_REASON) == ExitReason::TaskSwitch as u64
            || guest.debug_pending != 0;
        if under_delivery || self.stores_over_vmcs() {
            return;
        }
        let flags = |rflags| rflags & !Rflags::RF.bits();
        assert_eq!(vmcs.read(Field::GUEST_RIP), guest.rip);
        assert_eq!(vmcs.read(Field::GUEST_RSP), guest.gpr[Gpr::Rsp]);
        assert_eq!(flags(vmcs.read(Field::GUEST_RFLAGS)), flags(guest.rflags()));
        assert_eq!(vmcs.read(Field::GUEST_CR0), guest.cr0.bits());
        assert_eq!(vmcs.read(Field::GUEST_CR3), guest.cr3);
        assert_eq!(vmcs.read(Field::GUEST_CR4), guest.cr4.bits());
        assert_eq!(vmcs.read(Field::GUEST_GDTR_BASE), guest.gdtr.base);
        assert_eq!(vmcs.read(Field::GUEST_IDTR_BASE), guest.idtr.base);
        assert_eq!(vmcs.read(Field::GUEST_CS_RIGHTS), guest.segs[seg::CS].rights.0.into());
        assert_eq!(vmcs.read(Field::GUEST_SS_BASE), guest.segs[seg::SS].base);
        let ia32e = vmcs.read_32(Field::ENTRY_CONTROLS) & EntryControls::IA32E.bits() != 0;
        assert_eq!(ia32e, guest.long_mode());
    }
}

/// The guest state of the VMCS is in the processor.
pub(super) fn assert_loaded(cpu: &Cpu) {
    let (vmcs, arch) = (cpu.vmcs(VMCS), &cpu.arch);
    assert_eq!(arch.cr3, vmcs.read(Field::GUEST_CR3));
    assert_eq!(arch.cr4.bits(), vmcs.read(Field::GUEST_CR4));
    if vmcs.read(Field::ENTRY_MSR_LOAD_COUNT) == 0 {
        assert_eq!(arch.msrs.sysenter_eip, vmcs.read(Field::GUEST_SYSENTER_EIP));
    }
    if vmcs.read_32(Field::ENTRY_INTERRUPTION) & interruption::VALID == 0 {
        assert_eq!(arch.rip, vmcs.read(Field::GUEST_RIP));
        assert_eq!(arch.gpr[Gpr::Rsp], vmcs.read(Field::GUEST_RSP));
        assert_eq!(arch.rflags(), vmcs.read(Field::GUEST_RFLAGS));
    }
}
