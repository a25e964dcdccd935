//! A processor in VMX root operation, and a VMCS and extended page tables that VM entry takes.

use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::segment::{Rights, Segment, seg};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::ExitControls;
use cloister_x86::{Gpr, msr};

use crate::cpu::Cpu;
use crate::state::VmxState;
use crate::testing::Guest;
use crate::vmx::capability;
use crate::vmx::controls::ExecutionControls;
use crate::vmx::guest::{self, Saved};
use crate::vmx::region::REVISION;

/// VMXON region.
pub(crate) const VMXON: u64 = 0x10_0000;
/// The current VMCS.
pub(crate) const VMCS: u64 = 0x10_1000;
/// Where the guest begins, and where exits lead.
pub(crate) const GUEST: u64 = 0x10_2000;
pub(crate) const HOST: u64 = 0x10_3000;
/// Two pages for bitmaps and lists.
pub(crate) const PAGE: u64 = 0x10_4000;

/// Extended page tables, one page for each level.
pub(crate) const PML4: u64 = 0x20_0000;
pub(crate) const PDPT: u64 = 0x20_1000;
pub(crate) const PD: u64 = 0x20_2000;
pub(crate) const TABLE: u64 = 0x20_3000;
/// Rights of their entries.
pub(crate) const ALL: u64 = 7;
pub(crate) const WRITE_BACK: u64 = 6 << 3;

/// Puts a processor in 64-bit mode at CPL 0 into VMX root operation, with [`VMCS`] current.
pub(crate) fn enter_root(guest: &mut Guest) {
    guest.vcpu.catch_exceptions(false);
    let cpu = &mut guest.vcpu.cpu;
    cpu.ctl.features.vmx = true;
    cpu.ctl.vmx_enabled = true;
    cpu.arch.cr0 |= Cr0::NE;
    cpu.arch.cr4 |= Cr4::VMXE;
    for number in [seg::ES, seg::SS, seg::DS, seg::FS, seg::GS] {
        cpu.arch.segs[number] = Segment::flat(0x10, Rights(0xc093));
    }
    cpu.arch.segs[seg::CS] = Segment::flat(8, Rights(0xa09b));
    let tr = Segment { selector: 0x18, base: 0, limit: 0x67, rights: Rights(0x8b) };
    cpu.arch.segs[seg::TR] = tr;
    cpu.arch.segs[seg::LDTR].rights = Rights(Rights::UNUSABLE);
    cpu.arch.vmx = VmxState { vmxon: Some(VMXON), current: Some(VMCS), guest: None };
    cpu.derive();
    guest.write_u64(VMXON, REVISION.into());
}

/// Makes the region at `address` a VMCS that lets the processor go on as it is, at [`GUEST`], and whose
/// exits lead to [`HOST`].
pub(crate) fn fill_region(cpu: &Cpu, address: u64) {
    cpu.physical_page(address).write(0, REVISION.into());
    let required = |index| capability::read(index, &cpu.ctl.features).unwrap_or(0) & 0xffff_ffff;
    let arch = &cpu.arch;
    let vmcs = cpu.vmcs(address);
    for (field, index) in [
        (Field::PIN_CONTROLS, msr::VMX_TRUE_PINBASED_CTLS),
        (Field::PROC_CONTROLS, msr::VMX_TRUE_PROCBASED_CTLS),
        (Field::EXIT_CONTROLS, msr::VMX_TRUE_EXIT_CTLS),
        (Field::ENTRY_CONTROLS, msr::VMX_TRUE_ENTRY_CTLS),
    ] {
        vmcs.write(field, required(index));
    }
    let exit = vmcs.read(Field::EXIT_CONTROLS) | u64::from(ExitControls::HOST_64.bits());
    vmcs.write(Field::EXIT_CONTROLS, exit);
    let saved = Saved {
        rflags: 2,
        pending_debug: 0,
        preemption_timer: None,
        enclave_interruption: false,
        pml_index: 0,
        interrupt_status: 0,
    };
    guest::save(vmcs, cpu, &ExecutionControls::read(vmcs), saved);
    vmcs.write(Field::LINK_POINTER, u64::MAX);
    vmcs.write(Field::GUEST_RIP, GUEST);
    vmcs.write(Field::GUEST_EFER, arch.efer.bits());
    for (field, value) in [
        (Field::HOST_CR0, arch.cr0.bits()),
        (Field::HOST_CR3, arch.cr3),
        (Field::HOST_CR4, arch.cr4.bits()),
        (Field::HOST_CS_SELECTOR, 8),
        (Field::HOST_SS_SELECTOR, 0x10),
        (Field::HOST_TR_SELECTOR, 0x18),
        (Field::HOST_RSP, arch.gpr[Gpr::Rsp]),
        (Field::HOST_RIP, HOST),
        (Field::HOST_EFER, arch.efer.bits()),
    ] {
        vmcs.write(field, value);
    }
}

/// Writes extended page tables that map all to itself: the first 2 MiB by pages of 4 KiB.
pub(crate) fn map_all(guest: &mut Guest) {
    guest.write_u64(PML4, PDPT | ALL);
    guest.write_u64(PDPT, PD | ALL);
    guest.write_u64(PD, TABLE | ALL);
    guest.write_u64(PD + 8, 0x20_0000 | 1 << 7 | WRITE_BACK | ALL);
    for page in 0..512 {
        guest.write_u64(TABLE + 8 * page, page << 12 | WRITE_BACK | ALL);
    }
}
