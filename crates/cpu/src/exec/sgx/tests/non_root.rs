//! Enclaves in VMX non-root operation: what an exit from one says (SDM Vol. 3C, 27.2.1 and 27.3.4).

use cloister_x86::regs::{Cr0, Cr4};
use cloister_x86::vmcs::Field;
use cloister_x86::vmx::{EXIT_REASON_ENCLAVE, Interruptibility, ProcControls, SecondaryControls};
use cloister_x86::{Gpr, PageFaultCode, TableRegister};
use iced_x86::code_asm::*;

use super::host::{AEP, DATA, HOLE, Host, SHARED, epc_page};
use crate::testing::EPC;
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
    let mut host = Host::new();
    host.load(|a| a.mov(byte_ptr(page + 0x123), 1));
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
