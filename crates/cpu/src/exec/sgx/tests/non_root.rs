//! Enclaves in VMX non-root operation: what an exit from one says (SDM Vol. 3C, 27.2.1 and 27.3.4).

use core::mem::offset_of;

use cloister_sgx::layout::GprSgx;
use cloister_sgx::{Capabilities, EpcIndex, SgxFeatures, encls, enclu};
use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{
    EXIT_REASON_ENCLAVE, ExitReason, Interruptibility, ProcControls, SecondaryControls,
};
use cloister_x86::{Gpr, PageFaultCode, TableRegister, Vector};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::host::{
    AEP, CODE, DATA, EXITED, HOLE, Host, PAGEINFO, SHARED, SOURCE, STUB, capabilities, epc_page,
    exit, window,
};
use crate::exec::system::tests::kernel::HANDLERS;
use crate::testing::EPC;
use crate::vmx::fuzzing::hypervisor::{ALL, WRITE_BACK};
use crate::vmx::tests::machine::{HOST, VMCS, become_guest, fill};
use crate::{Exit, Vcpu};

/// A page fault, and #GP, as interruption information has them.
const PAGE_FAULT: u64 = 0x8000_0b0e;
const PROTECTION: u64 = 0x8000_0b0d;
const ENCLAVE: u64 = EXIT_REASON_ENCLAVE as u64;

/// An enclave whose code touches a page that is not there, on a processor that is about to enter it, in a
/// guest whose exceptions `bitmap` exit.
fn guest(bitmap: u32) -> Host {
    let mut host = touching(HOLE);
    host.kernel.guest.vcpu.cpu.vmcs(VMCS).write(Field::EXCEPTION_BITMAP, bitmap.into());
    begin(&mut host);
    host
}

/// An enclave whose code writes to a page, on a processor with a VMCS.
fn touching(page: u64) -> Host {
    with_vmcs(|a| a.mov(byte_ptr(page + 0x123), 1))
}

/// An enclave with this code, on a processor with a VMCS.
fn with_vmcs(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Host {
    with_vmcs_on(capabilities(), code)
}

/// The same on a platform with these capabilities.
fn with_vmcs_on(
    capabilities: Capabilities,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Host {
    let mut host = Host::with(capabilities, 1);
    host.load(code);
    host.kernel.guest.vcpu.cpu.ctl.features.vmx = true;
    host.kernel.guest.vcpu.cpu.arch.cr0 |= Cr0::NE;
    host.kernel.guest.vcpu.cpu.arch.cr4 |= Cr4::VMXE;
    fill(&mut host.kernel.guest);
    host
}

/// Has the processor enter the enclave as a guest.
fn begin(host: &mut Host) {
    host.enter();
    become_guest(&mut host.kernel.vcpu().cpu);
}

/// Runs to the exit, and reads fields.
fn leave<const N: usize>(vcpu: &mut Vcpu, fields: [Field; N]) -> [u64; N] {
    let exit = vcpu.run();
    assert!(matches!(exit, Exit::IoOut { .. }), "{exit:?}");
    assert_eq!(vcpu.cpu.arch.rip, HOST);
    assert!(!vcpu.cpu.enclave.in_enclave());
    fields.map(|field| vcpu.cpu.vmcs(VMCS).read(field))
}

#[test]
fn an_exit_from_an_enclave_shows_the_state_after_an_aex_and_no_more_than_the_page() {
    let mut host = guest(1 << 14);
    let [reason, interruption, qualification, length, rip, state] = leave(
        host.kernel.vcpu(),
        [
            Field::EXIT_REASON,
            Field::EXIT_INTERRUPTION,
            Field::EXIT_QUALIFICATION,
            Field::EXIT_INSTRUCTION_LENGTH,
            Field::GUEST_RIP,
            Field::GUEST_INTERRUPTIBILITY,
        ],
    );
    assert_eq!(reason, ENCLAVE);
    assert_eq!(interruption, PAGE_FAULT);
    assert_eq!(qualification, HOLE);
    assert_eq!(length, 0);
    assert_eq!(rip, AEP);
    assert_eq!(state, u64::from(Interruptibility::ENCLAVE.bits()));
    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::Rax], 3, "ERESUME");
}

#[test]
fn an_exit_under_the_delivery_of_an_enclaves_event_is_one_from_the_enclave() {
    let fields = [Field::EXIT_REASON, Field::EXIT_INTERRUPTION, Field::IDT_VECTORING];
    // With #GP in the bitmap, it is the exit; else a double fault and a triple fault come of it.
    for (bitmap, reason, vectoring) in
        [(1 << 13, ENCLAVE, PAGE_FAULT), (1 << 8, ENCLAVE, 0), (0, ENCLAVE | 2, 0)]
    {
        let mut host = guest(bitmap);
        host.kernel.vcpu().cpu.arch.idtr = TableRegister::default();
        let found = leave(host.kernel.vcpu(), fields);
        assert_eq!(found[0], reason, "{bitmap:#x}");
        assert_eq!(found[2], vectoring, "{bitmap:#x}");
        if bitmap == 1 << 13 {
            assert_eq!(found[1], PROTECTION);
        }
        let state = host.kernel.vcpu().cpu.vmcs(VMCS).read(Field::GUEST_INTERRUPTIBILITY);
        assert_eq!(state, u64::from(Interruptibility::ENCLAVE.bits()));
    }
}

#[test]
fn the_apic_access_page_is_one_outside_enclaves() {
    let accessing = |page, apic_access| {
        let mut host = touching(page);
        let vmcs = host.kernel.guest.vcpu.cpu.vmcs(VMCS);
        let proc = vmcs.read(Field::PROC_CONTROLS) | u64::from(ProcControls::SECONDARY.bits());
        vmcs.write(Field::PROC_CONTROLS, proc);
        vmcs.write(Field::SECONDARY_CONTROLS, SecondaryControls::APIC_ACCESSES.bits().into());
        vmcs.write(Field::APIC_ACCESS, apic_access);
        vmcs.write(Field::EXCEPTION_BITMAP, 1 << 14);
        begin(&mut host);
        host
    };
    let mut host = accessing(SHARED, SHARED);
    let fields = [Field::EXIT_REASON, Field::EXIT_QUALIFICATION, Field::EXIT_INSTRUCTION_LENGTH];
    assert_eq!(leave(host.kernel.vcpu(), fields), [ENCLAVE | 44, 1 << 12, 0]);
    assert_eq!(host.kernel.vcpu().cpu.vmcs(VMCS).read(Field::GUEST_RIP), AEP);

    let page = EPC + (u64::from(epc_page(DATA)) << 12);
    let mut host = accessing(DATA, page);
    let fields = [Field::EXIT_REASON, Field::EXIT_INTERRUPTION, Field::EXIT_ERROR_CODE];
    let code =
        PageFaultCode::PRESENT | PageFaultCode::WRITE | PageFaultCode::USER | PageFaultCode::SGX;
    assert_eq!(leave(host.kernel.vcpu(), fields), [ENCLAVE, PAGE_FAULT, code.bits().into()]);
}

#[test]
fn an_ept_violation_of_an_enclave_names_the_page_alone() {
    /// Extended page tables that map all to itself but [`SHARED`].
    const TABLES: u64 = 0x30_0000;
    let mut host = touching(SHARED);
    let [pdpt, pd, table] = [1, 2, 3].map(|level| TABLES + 0x1000 * level);
    let large = 1 << 7 | WRITE_BACK | ALL;
    for (at, entry) in [
        (TABLES, pdpt | ALL),
        (pdpt, pd | ALL),
        (pdpt + 8 * (EPC >> 30), EPC | large),
        (pd, large),
        (pd + 8, table | ALL),
    ] {
        host.kernel.guest.write_u64(at, entry);
    }
    for page in (0x20_0000..0x40_0000).step_by(0x1000).filter(|&page| page != SHARED) {
        host.kernel.guest.write_u64(table + page / 0x1000 % 512 * 8, page | WRITE_BACK | ALL);
    }
    let vmcs = host.kernel.guest.vcpu.cpu.vmcs(VMCS);
    let proc = vmcs.read(Field::PROC_CONTROLS) | u64::from(ProcControls::SECONDARY.bits());
    vmcs.write(Field::PROC_CONTROLS, proc);
    vmcs.write(Field::SECONDARY_CONTROLS, SecondaryControls::EPT.bits().into());
    vmcs.write(Field::EPTP, TABLES | 3 << 3 | 6);
    begin(&mut host);
    let fields = [Field::EXIT_REASON, Field::GUEST_LINEAR_ADDRESS, Field::GUEST_PHYSICAL_ADDRESS];
    assert_eq!(leave(host.kernel.vcpu(), fields), [ENCLAVE | 48, SHARED, SHARED]);
}

/// An enclave on a processor whose monitor trap flag is set; its thread is opted in to debugging, or not.
fn monitored(opt_in: bool, code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Host {
    let mut host = with_vmcs(code);
    if opt_in {
        host.opt_in();
    }
    let vmcs = host.kernel.guest.vcpu.cpu.vmcs(VMCS);
    let proc = vmcs.read(Field::PROC_CONTROLS) | u64::from(ProcControls::MONITOR_TRAP.bits());
    vmcs.write(Field::PROC_CONTROLS, proc);
    host
}

const TRAP: u64 = ExitReason::MonitorTrap as u64;
const REASON_AND_RIP: [Field; 2] = [Field::EXIT_REASON, Field::GUEST_RIP];

#[test]
fn the_monitor_trap_flag_is_masked_from_an_entry_that_opts_out_to_the_exit() {
    let mut host = monitored(false, |a| {
        a.inc(r8)?;
        exit(a)
    });
    begin(&mut host);
    assert_eq!(leave(host.kernel.vcpu(), REASON_AND_RIP), [TRAP, EXITED]);
    assert_eq!(host.kernel.vcpu().cpu.arch.gpr[Gpr::R8], 1);
}

#[test]
fn the_monitor_trap_flag_exits_after_the_delivery_of_an_enclaves_event() {
    let mut host = monitored(false, |a| a.mov(al, byte_ptr(HOLE)));
    begin(&mut host);
    let handler = HANDLERS + 16 * u64::from(Vector::Pf as u8);
    assert_eq!(leave(host.kernel.vcpu(), REASON_AND_RIP), [TRAP, handler]);
}

#[test]
fn the_monitor_trap_flag_traps_in_an_enclave_that_is_opted_in_to_debugging() {
    let rip = |host: &Host| host.saved(offset_of!(GprSgx, rip));
    let mut host = monitored(true, |a| {
        a.inc(r8)?;
        a.inc(r8)?;
        exit(a)
    });
    begin(&mut host);
    // After EENTER.
    assert_eq!(leave(host.kernel.vcpu(), REASON_AND_RIP), [ENCLAVE | TRAP, AEP]);
    assert_eq!(rip(&host), CODE);
    // Not after ERESUME, but after the instruction that follows.
    for instruction in 1..=2 {
        host.enter();
        let cpu = &mut host.kernel.vcpu().cpu;
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax]) = (AEP, u64::from(enclu::leaf::ERESUME));
        become_guest(cpu);
        assert_eq!(leave(host.kernel.vcpu(), REASON_AND_RIP), [ENCLAVE | TRAP, AEP]);
        assert_eq!(rip(&host), CODE + 3 * instruction);
    }
}

#[test]
fn the_monitor_trap_flag_traps_after_encls() {
    let mut host = monitored(false, exit);
    host.kernel.set_level(0);
    let cpu = &mut host.kernel.vcpu().cpu;
    (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx]) =
        (STUB, u64::from(encls::leaf::EREMOVE), window(31));
    become_guest(cpu);
    assert_eq!(leave(host.kernel.vcpu(), REASON_AND_RIP), [TRAP, STUB + 3]);
}

#[test]
fn a_conflict_of_leaves_exits_where_the_hypervisor_has_asked() {
    let page = 31;
    let capabilities = capabilities();
    let features = capabilities.features | SgxFeatures::OVERSUB_ENCLV | SgxFeatures::OVERSUB_ENCLS;
    let mut host = with_vmcs_on(Capabilities { features, ..capabilities }, exit);
    let platform = host.platform.clone();
    let _held = platform.hold(EpcIndex(page)).expect("a page that no leaf has");
    for at in [8, 16] {
        host.kernel.guest.write_u64(PAGEINFO + at, SOURCE);
    }
    let vmcs = host.kernel.guest.vcpu.cpu.vmcs(VMCS);
    let proc = vmcs.read(Field::PROC_CONTROLS) | u64::from(ProcControls::SECONDARY.bits());
    vmcs.write(Field::PROC_CONTROLS, proc);
    let virtualized = SecondaryControls::EPC_VIRTUALIZATION.bits();
    // EREMOVE, whose conflict is else #GP(0), and ELDUC, which else reports it.
    for (leaf, qualification) in [(encls::leaf::EREMOVE, 2), (encls::leaf::ELDUC, 7 << 16 | 3)] {
        let vmcs = host.kernel.guest.vcpu.cpu.vmcs(VMCS);
        vmcs.write(Field::SECONDARY_CONTROLS, virtualized.into());
        host.kernel.set_level(0);
        let cpu = &mut host.kernel.vcpu().cpu;
        (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx]) =
            (STUB, u64::from(leaf), window(page));
        (cpu.arch.gpr[Gpr::Rbx], cpu.arch.gpr[Gpr::Rdx]) = (PAGEINFO, window(30));
        become_guest(cpu);
        let fields = [
            Field::EXIT_REASON,
            Field::EXIT_QUALIFICATION,
            Field::GUEST_LINEAR_ADDRESS,
            Field::GUEST_PHYSICAL_ADDRESS,
            Field::GUEST_RIP,
        ];
        let physical = EPC + (u64::from(page) << 12);
        let expected = [71, qualification, window(page), physical, STUB];
        assert_eq!(leave(host.kernel.vcpu(), fields), expected, "{leaf}");
    }
    // Without the control: #GP(0).
    let cpu = &mut host.kernel.vcpu().cpu;
    let vmcs = cpu.vmcs(VMCS);
    vmcs.write(Field::SECONDARY_CONTROLS, 0);
    vmcs.write(Field::EXCEPTION_BITMAP, 1 << 13);
    (cpu.arch.rip, cpu.arch.gpr[Gpr::Rax], cpu.arch.gpr[Gpr::Rcx]) =
        (STUB, u64::from(encls::leaf::EREMOVE), window(page));
    become_guest(cpu);
    let found = leave(host.kernel.vcpu(), [Field::EXIT_REASON, Field::EXIT_INTERRUPTION]);
    assert_eq!(found, [0, PROTECTION]);
}
