//! The controls of a VMCS: read once, judged, then used (SDM Vol. 3C, 24.6 to 24.8 and 26.2.1).

use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{
    EntryControls, ExitControls, PinControls, ProcControls, SecondaryControls, function,
    interruption,
};

use super::capability::{self, CR3_TARGETS};
use super::region::Region;
use crate::cpu::Cpu;
use crate::mem::world::WorldKey;

/// A list of MSRs in memory: 16 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsrList {
    /// Physical address.
    pub(crate) address: u64,
    /// Entries.
    pub(crate) count: u32,
}

/// An event that VM entry injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryEvent {
    /// VM-entry interruption information.
    pub(crate) information: u32,
    /// Exception error code.
    pub(crate) error_code: u32,
    /// Instruction length.
    pub(crate) length: u32,
}

/// What a guest hypervisor has of CR0 or CR4: guest/host mask and read shadow (SDM Vol. 3C, 24.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) mask: u64,
    pub(crate) shadow: u64,
}

impl Guard {
    /// The register as the guest reads it.
    pub(crate) const fn read(self, register: u64) -> u64 {
        register & !self.mask | self.shadow & self.mask
    }

    /// What the guest's write of `value` makes of the register; `None` where it exits.
    pub(crate) const fn write(self, register: u64, value: u64) -> Option<u64> {
        if (value ^ self.shadow) & self.mask != 0 {
            return None;
        }
        Some(value & !self.mask | register & self.mask)
    }
}

/// The controls of a VMCS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExecutionControls {
    /// The words as they are, bits without a name included.
    pub(crate) words: [u32; 5],
    pub(crate) pin: PinControls,
    pub(crate) proc: ProcControls,
    /// Empty while the primary controls do not activate them.
    pub(crate) secondary: SecondaryControls,
    pub(crate) exit: ExitControls,
    pub(crate) entry: EntryControls,
    pub(crate) exception_bitmap: u32,
    pub(crate) page_fault_mask: u32,
    pub(crate) page_fault_match: u32,
    pub(crate) io_bitmaps: [u64; 2],
    pub(crate) msr_bitmap: u64,
    pub(crate) tsc_offset: u64,
    pub(crate) tsc_multiplier: u64,
    pub(crate) ple_gap: u32,
    pub(crate) ple_window: u32,
    pub(crate) pml_address: u64,
    pub(crate) virtual_apic: u64,
    pub(crate) apic_access: u64,
    pub(crate) posted_vector: u16,
    pub(crate) posted_descriptor: u64,
    pub(crate) eoi_exit: [u64; 4],
    pub(crate) tpr_threshold: u32,
    pub(crate) vpid: u16,
    /// VM-function controls.
    pub(crate) functions: u64,
    /// EPT pointer; EPTP switching replaces it.
    pub(crate) eptp: u64,
    pub(crate) eptp_list: u64,
    pub(crate) vmread_bitmap: u64,
    pub(crate) vmwrite_bitmap: u64,
    pub(crate) encls_exiting: u64,
    pub(crate) enclv_exiting: u64,
    pub(crate) cr0: Guard,
    pub(crate) cr4: Guard,
    pub(crate) cr3_target_count: u32,
    pub(crate) cr3_targets: [u64; CR3_TARGETS as usize],
    pub(crate) exit_store: MsrList,
    pub(crate) exit_load: MsrList,
    pub(crate) entry_load: MsrList,
    pub(crate) event: EntryEvent,
}

impl ExecutionControls {
    /// Reads them.
    pub(crate) fn read(vmcs: Region<'_>) -> Self {
        let word = |field| vmcs.read_32(field);
        // Once, as each field is: what is judged is what is used.
        let primary = word(Field::PROC_CONTROLS);
        let proc = ProcControls::from_bits_truncate(primary);
        let secondary = if proc.contains(ProcControls::SECONDARY) {
            word(Field::SECONDARY_CONTROLS)
        } else {
            0
        };
        let guard = |mask, shadow| Guard { mask: vmcs.read(mask), shadow: vmcs.read(shadow) };
        let list = |address, count| MsrList { address: vmcs.read(address), count: word(count) };
        let words = [
            word(Field::PIN_CONTROLS),
            primary,
            secondary,
            word(Field::EXIT_CONTROLS),
            word(Field::ENTRY_CONTROLS),
        ];
        Self {
            words,
            pin: PinControls::from_bits_truncate(words[0]),
            proc,
            secondary: SecondaryControls::from_bits_truncate(secondary),
            exit: ExitControls::from_bits_truncate(words[3]),
            entry: EntryControls::from_bits_truncate(words[4]),
            exception_bitmap: word(Field::EXCEPTION_BITMAP),
            page_fault_mask: word(Field::PAGE_FAULT_MASK),
            page_fault_match: word(Field::PAGE_FAULT_MATCH),
            io_bitmaps: [vmcs.read(Field::IO_BITMAP_A), vmcs.read(Field::IO_BITMAP_B)],
            msr_bitmap: vmcs.read(Field::MSR_BITMAP),
            tsc_offset: vmcs.read(Field::TSC_OFFSET),
            tsc_multiplier: vmcs.read(Field::TSC_MULTIPLIER),
            ple_gap: word(Field::PLE_GAP),
            ple_window: word(Field::PLE_WINDOW),
            pml_address: vmcs.read(Field::PML_ADDRESS),
            virtual_apic: vmcs.read(Field::VIRTUAL_APIC),
            apic_access: vmcs.read(Field::APIC_ACCESS),
            posted_vector: vmcs.read(Field::POSTED_VECTOR) as u16,
            posted_descriptor: vmcs.read(Field::POSTED_DESCRIPTOR),
            eoi_exit: std::array::from_fn(|n| vmcs.read(Field::EOI_EXIT_BITMAP0.plus(n as u32))),
            tpr_threshold: word(Field::TPR_THRESHOLD),
            vpid: vmcs.read(Field::VPID) as u16,
            functions: vmcs.read(Field::VM_FUNCTION_CONTROLS),
            eptp: vmcs.read(Field::EPTP),
            eptp_list: vmcs.read(Field::EPTP_LIST),
            vmread_bitmap: vmcs.read(Field::VMREAD_BITMAP),
            vmwrite_bitmap: vmcs.read(Field::VMWRITE_BITMAP),
            encls_exiting: vmcs.read(Field::ENCLS_EXITING),
            enclv_exiting: vmcs.read(Field::ENCLV_EXITING),
            cr0: guard(Field::CR0_MASK, Field::CR0_SHADOW),
            cr4: guard(Field::CR4_MASK, Field::CR4_SHADOW),
            cr3_target_count: word(Field::CR3_TARGET_COUNT),
            cr3_targets: std::array::from_fn(|n| vmcs.read(Field::CR3_TARGET0.plus(n as u32))),
            exit_store: list(Field::EXIT_MSR_STORE_ADDRESS, Field::EXIT_MSR_STORE_COUNT),
            exit_load: list(Field::EXIT_MSR_LOAD_ADDRESS, Field::EXIT_MSR_LOAD_COUNT),
            entry_load: list(Field::ENTRY_MSR_LOAD_ADDRESS, Field::ENTRY_MSR_LOAD_COUNT),
            event: EntryEvent {
                information: word(Field::ENTRY_INTERRUPTION),
                error_code: word(Field::ENTRY_ERROR_CODE),
                length: word(Field::ENTRY_INSTRUCTION_LENGTH),
            },
        }
    }

    /// Whether the guest may run without paging, or in real-address mode.
    pub(crate) const fn unrestricted(&self) -> bool {
        self.secondary.contains(SecondaryControls::UNRESTRICTED_GUEST)
    }

    /// Whether extended page tables translate guest-physical addresses.
    pub(crate) const fn has_ept(&self) -> bool {
        self.secondary.contains(SecondaryControls::EPT)
    }

    /// Whether virtual interrupts are evaluated and delivered.
    pub(crate) const fn has_virtual_interrupts(&self) -> bool {
        self.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPTS)
    }

    /// Whether an external interrupt tells of posted interrupts.
    pub(crate) fn is_notification(&self, vector: u8) -> bool {
        self.pin.contains(PinControls::POSTED_INTERRUPTS) && self.posted_vector == u16::from(vector)
    }

    /// What the guest's translations are tagged with; `None` where they last from entry to exit.
    pub(crate) fn world(&self) -> Option<WorldKey> {
        let eptp = if self.has_ept() { self.eptp } else { 0 };
        let tagged = self.secondary.contains(SecondaryControls::VPID);
        tagged.then_some(WorldKey { vpid: self.vpid, eptp })
    }

    /// The checks of VM entry on its controls. What may be injected depends on whether the guest will
    /// be in protected mode.
    pub(crate) fn are_valid(&self, cpu: &Cpu, protected: bool) -> bool {
        self.execution_valid(cpu) && self.exit_valid(cpu) && self.entry_valid(cpu, protected)
    }

    /// SDM Vol. 3C, 26.2.1.1.
    fn execution_valid(&self, cpu: &Cpu) -> bool {
        use SecondaryControls as S;
        let [pin, proc, secondary, ..] = self.words;
        let address = |address| is_page(cpu, address);
        let has = |control| self.proc.contains(control);
        let has_second = |control| self.secondary.contains(control);
        capability::PIN.permit(pin)
            && capability::PROC.permit(proc)
            && capability::secondary(&cpu.ctl.features).permit(secondary)
            && self.cr3_target_count <= CR3_TARGETS
            && (!has(ProcControls::IO_BITMAPS) || self.io_bitmaps.iter().all(|&at| address(at)))
            && (!has(ProcControls::MSR_BITMAP) || address(self.msr_bitmap))
            && self.tpr_shadow_valid(cpu)
            && self.apic_valid(cpu)
            && (self.pin.contains(PinControls::NMI)
                || !self.pin.contains(PinControls::VIRTUAL_NMIS))
            && (self.pin.contains(PinControls::VIRTUAL_NMIS) || !has(ProcControls::NMI_WINDOW))
            && (!has_second(S::VPID) || self.vpid != 0)
            && (!has_second(S::EPT) || is_eptp(cpu, self.eptp))
            && (!has_second(S::UNRESTRICTED_GUEST) || has_second(S::EPT))
            && (!has_second(S::PAGE_MODIFICATION_LOG)
                || (has_second(S::EPT) && address(self.pml_address)))
            && (!has_second(S::VM_FUNCTIONS) || self.functions_valid(cpu))
            && (!has_second(S::VMCS_SHADOWING)
                || (address(self.vmread_bitmap) && address(self.vmwrite_bitmap)))
    }

    fn tpr_shadow_valid(&self, cpu: &Cpu) -> bool {
        use SecondaryControls as S;
        if !self.proc.contains(ProcControls::TPR_SHADOW) {
            return !self
                .secondary
                .intersects(S::X2APIC | S::APIC_REGISTERS | S::VIRTUAL_INTERRUPTS);
        }
        let task_priority = || u32::from(cpu.virtual_task_priority(self.virtual_apic) >> 4);
        is_page(cpu, self.virtual_apic)
            && (self.has_virtual_interrupts()
                || (self.tpr_threshold >> 4 == 0
                    && (self.secondary.contains(S::APIC_ACCESSES)
                        || self.tpr_threshold <= task_priority())))
    }

    /// APIC accesses, virtual interrupts and posted interrupts.
    fn apic_valid(&self, cpu: &Cpu) -> bool {
        use SecondaryControls as S;
        let accesses = self.secondary.contains(S::APIC_ACCESSES);
        let external = self.pin.contains(PinControls::EXTERNAL_INTERRUPT);
        let acknowledged = self.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT);
        (!accesses || (is_page(cpu, self.apic_access) && !self.secondary.contains(S::X2APIC)))
            && (external || !self.has_virtual_interrupts())
            && (!self.pin.contains(PinControls::POSTED_INTERRUPTS)
                || (self.has_virtual_interrupts()
                    && acknowledged
                    && self.posted_vector <= 0xff
                    && self.posted_descriptor & 0x3f == 0
                    && cpu.is_physical(self.posted_descriptor)))
    }

    fn functions_valid(&self, cpu: &Cpu) -> bool {
        self.functions & !capability::FUNCTIONS == 0
            && (self.functions & function::EPTP_SWITCHING == 0
                || (self.has_ept() && is_page(cpu, self.eptp_list)))
    }

    /// SDM Vol. 3C, 26.2.1.2.
    fn exit_valid(&self, cpu: &Cpu) -> bool {
        capability::EXIT.permit(self.words[3])
            && (self.pin.contains(PinControls::PREEMPTION_TIMER)
                || !self.exit.contains(ExitControls::SAVE_PREEMPTION_TIMER))
            && is_list(cpu, self.exit_store)
            && is_list(cpu, self.exit_load)
    }

    /// SDM Vol. 3C, 26.2.1.3.
    fn entry_valid(&self, cpu: &Cpu, protected: bool) -> bool {
        capability::ENTRY.permit(self.words[4])
            && self.event_valid(protected)
            && is_list(cpu, self.entry_load)
    }

    /// The event to inject.
    fn event_valid(&self, protected: bool) -> bool {
        use interruption as i;
        let EntryEvent { information, error_code, length } = self.event;
        if information & i::VALID == 0 {
            return true;
        }
        let (vector, kind) = (information & 0xff, information >> 8 & 7);
        let has_code = information & i::ERROR_CODE != 0;
        let type_valid = match kind {
            i::NMI => vector == 2,
            i::HARDWARE_EXCEPTION => vector < 32,
            // Only where the monitor trap flag is there, as it is.
            i::OTHER => vector == 0,
            i::EXTERNAL | i::SOFTWARE_INTERRUPT | i::PRIVILEGED_SOFTWARE => true,
            i::SOFTWARE_EXCEPTION => true,
            _ => false,
        };
        // Without protection no exception has an error code.
        let pushes = kind == i::HARDWARE_EXCEPTION
            && (protected || !self.unrestricted())
            && matches!(vector, 8 | 10..=14 | 17);
        let software =
            matches!(kind, i::SOFTWARE_INTERRUPT | i::PRIVILEGED_SOFTWARE | i::SOFTWARE_EXCEPTION);
        type_valid
            && has_code == pushes
            && information & 0x7fff_f000 == 0
            && (!has_code || error_code >> 16 == 0)
            && (!software || length <= 15)
    }
}

impl Cpu {
    /// Whether an address has no bits beyond the physical-address width.
    pub(crate) const fn is_physical(&self, address: u64) -> bool {
        address >> self.ctl.features.physical_bits == 0
    }
}

/// Whether `address` is that of a physical page.
pub(crate) const fn is_page(cpu: &Cpu, address: u64) -> bool {
    address & 0xfff == 0 && cpu.is_physical(address)
}

/// Whether an MSR list is where one may be.
const fn is_list(cpu: &Cpu, list: MsrList) -> bool {
    let last = list.address.wrapping_add(16 * list.count as u64).wrapping_sub(1);
    list.count == 0
        || (list.address & 0xf == 0 && cpu.is_physical(list.address) && cpu.is_physical(last))
}

/// Whether an EPT pointer is valid: write-back, four levels (SDM Vol. 3C, 24.6.11).
pub(crate) const fn is_eptp(cpu: &Cpu, eptp: u64) -> bool {
    eptp & 0x3f == 3 << 3 | 6 && eptp & 0xf80 == 0 && cpu.is_physical(eptp)
}
