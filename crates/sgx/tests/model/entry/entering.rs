//! EENTER, EEXIT and ERESUME.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, Attributes, EpcIndex, ExitingEvent, SgxStatus, Stepping, Stop};
use cloister_x86::{Gpr, La, PageFaultCode, Rights};

use crate::enclave::{BASE, SSA, Spec, TCS, TCS_2, started};
use crate::machine::{GP, Machine, Mapping, epcm_fault};
use crate::signer::Signer;

const AEP: u64 = 0x40_2000;
const TF: u64 = 1 << 8;
const WU: PageFaultCode = PageFaultCode::WRITE.union(PageFaultCode::USER);

fn enter(machine: &mut Machine) -> Result<(), Stop> {
    machine.enclu(user::EENTER, TCS, AEP, 0).map(drop)
}

/// EENTER after `change` on a machine with the simple enclave.
fn refused(change: impl FnOnce(&mut Machine)) -> Stop {
    let mut machine = started();
    change(&mut machine);
    let before = machine.cpu;
    let stop = enter(&mut machine).expect_err("EENTER must fail");
    assert_eq!(machine.cpu, before, "nothing is committed");
    assert!(!machine.state.in_enclave());
    stop
}

/// Changes a quadword of the TCS in EPC page 1.
fn tcs_quad(machine: &mut Machine, offset: usize, value: u64) {
    machine.platform.page(EpcIndex(1)).store(offset, value);
}

#[test]
fn eenter_switches_to_the_entry_point() {
    let mut machine = started();
    machine.cpu.gpr[Gpr::Rsp] = 0x7ffe_0000;
    machine.cpu.gpr[Gpr::Rbp] = 0x7ffe_0010;
    machine.cpu.gpr[Gpr::Rdx] = 0x1234;
    let outside = machine.cpu;

    let outcome = machine.enclu(user::EENTER, TCS, AEP, 0x1234).expect("EENTER completes");

    assert!(outcome.flush);
    assert_eq!(outcome.xrstor, None);
    assert_eq!(outcome.stepping, Stepping::Suppressed, "an opt-out entry");
    assert_eq!(machine.cpu.rip, BASE + 0x2010);
    assert_eq!(machine.cpu.gpr[Gpr::Rax], 0, "CSSA");
    assert_eq!(machine.cpu.gpr[Gpr::Rcx], outside.rip, "the address after ENCLU");
    assert_eq!(machine.cpu.gpr[Gpr::Rdx], 0x1234);
    assert_eq!(machine.cpu.gpr[Gpr::Rsp], 0x7ffe_0000);
    assert_eq!((machine.cpu.fs.base, machine.cpu.gs.base), (BASE, BASE));
    assert_eq!((machine.cpu.fs.selector, machine.cpu.gs.selector), (0x0b, 0x0b));
    assert_eq!(machine.cpu.fs.rights, Rights(0xc0f3), "accessed, writable, present, DPL 3, 32-bit");
    assert_eq!(machine.cpu.xcr0, 3, "XFRM");
    assert!(machine.state.in_enclave());
    assert!(machine.state.in_elrange(La(BASE + 0xffff)));
    assert!(!machine.state.in_elrange(La(BASE + 0x10000)));
    let page = machine.platform.page(EpcIndex(1));
    assert_eq!(page.load(0), 1, "TCS.STATE");
    assert_eq!(page.load(40), AEP, "TCS.AEP");
    let frame = machine.platform.page(EpcIndex(5));
    assert_eq!(frame.load(4096 - 184 + 144), 0x7ffe_0000, "URSP");
    assert_eq!(frame.load(4096 - 184 + 152), 0x7ffe_0010, "URBP");
}

#[test]
fn eexit_restores_what_eenter_replaced() {
    let mut machine = started();
    machine.cpu.rflags |= TF;
    let outside = machine.cpu;
    enter(&mut machine).expect("EENTER completes");
    let inside = machine.cpu;

    let outcome = machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    assert_eq!(inside.rflags & TF, 0, "TF is masked inside");
    assert_eq!(machine.cpu.rflags & TF, TF);
    assert_eq!(outcome.stepping, Stepping::Pending, "TF is back at the end of EEXIT");
    assert!(outcome.flush);
    assert_eq!(machine.cpu.rip, 0x40_3000);
    assert_eq!(machine.cpu.gpr[Gpr::Rcx], AEP);
    assert_eq!((machine.cpu.fs, machine.cpu.gs), (outside.fs, outside.gs));
    assert_eq!(machine.cpu.xcr0, 7);
    assert!(!machine.state.in_enclave());
    assert_eq!(machine.platform.page(EpcIndex(1)).load(0), 0, "TCS.STATE");
}

#[test]
fn eexit_to_a_non_canonical_address_faults_inside() {
    let mut machine = started();
    enter(&mut machine).expect("EENTER completes");

    let stop = machine.enclu(user::EEXIT, 1 << 47, 0, 0);

    assert_eq!(stop, Err(GP));
    assert!(machine.state.in_enclave());
}

#[test]
fn entry_and_exit_can_alternate() {
    let mut machine = started();
    for round in 0..100 {
        enter(&mut machine).expect("EENTER completes");
        machine.enclu(user::EEXIT, 0x40_3000 + round, 0, 0).expect("EEXIT completes");
    }
    assert_eq!(machine.eremove(4), SgxStatus::Success, "nobody is left inside");
}

#[test]
fn leaves_of_the_other_side_are_faults() {
    let mut machine = started();

    for number in [user::EREPORT, user::EGETKEY, user::EEXIT, user::EACCEPT, user::EMODPE, 7, 9] {
        assert_eq!(machine.enclu(number, TCS, AEP, 0), Err(GP), "{number} outside");
    }
    enter(&mut machine).expect("EENTER completes");
    for number in [user::EENTER, user::ERESUME, 8, 9, 10, u32::MAX] {
        assert_eq!(machine.enclu(number, TCS_2, AEP, 0), Err(GP), "{number} inside");
    }
}

#[test]
fn eenter_checks_its_operands() {
    let mut machine = started();
    machine.memory.mappings.insert(0x9000, Mapping::Epc { index: EpcIndex(1), writable: true });
    machine.memory.put(0xa000, &[0]);
    let mut run = |rbx: u64, rcx: u64| machine.enclu(user::EENTER, rbx, rcx, 0).unwrap_err();

    assert_eq!(run(TCS + 8, AEP), GP, "TCS alignment");
    assert_eq!(run(0xa000, AEP), epcm_fault(0xa000, WU), "not in the EPC");
    assert_eq!(run(0xa000, 1 << 47), epcm_fault(0xa000, WU), "the TCS comes before the AEP");
    assert_eq!(run(TCS, 1 << 47), GP, "AEP not canonical");
    assert_eq!(run(0x9000, AEP), epcm_fault(0x9000, WU), "mapped elsewhere");
    assert_eq!(run(BASE + 0x3000, AEP), epcm_fault(BASE + 0x3000, WU), "PT_REG");
}

#[test]
fn eenter_checks_the_tcs() {
    assert_eq!(refused(|machine| tcs_quad(machine, 16, 0x4008)), GP, "OSSA alignment");
    assert_eq!(refused(|machine| tcs_quad(machine, 48, 8)), GP, "OFSBASE alignment");
    assert_eq!(refused(|machine| tcs_quad(machine, 56, 8)), GP, "OGSBASE alignment");
    assert_eq!(refused(|machine| tcs_quad(machine, 8, 4)), GP, "FLAGS reserved");
    assert_eq!(refused(|machine| tcs_quad(machine, 24, 2 << 32 | 2)), GP, "CSSA = NSSA");
    assert_eq!(refused(|machine| tcs_quad(machine, 32, 1 << 62)), GP, "OENTRY not canonical");
    assert_eq!(refused(|machine| tcs_quad(machine, 48, 1 << 62)), GP, "FS not canonical");
    assert_eq!(refused(|machine| tcs_quad(machine, 0, 1)), GP, "STATE");
}

#[test]
fn a_busy_tcs_is_reported_after_everything_else() {
    let unreadable = refused(|machine| {
        tcs_quad(machine, 0, 1);
        machine.memory.mappings.remove(&SSA);
    });

    let Stop::Fault(exception) = unreadable else { panic!("{unreadable:?}") };
    assert_eq!(exception.address, SSA, "the fault of the SSA page wins");
}

#[test]
fn eenter_checks_mode_and_extended_state() {
    assert_eq!(refused(|machine| machine.cpu.osfxsr = false), GP, "CR4.OSFXSR");
    assert_eq!(refused(|machine| machine.cpu.xcr0 = 1), GP, "XFRM not in XCR0");
    let mut machine = started();
    machine.cpu.osxsave = false;
    machine.cpu.xcr0 = 1;
    assert_eq!(enter(&mut machine), Ok(()), "without XSAVE XFRM 3 will do");
    assert_eq!(machine.cpu.xcr0, 1, "and XCR0 is left alone");
}

#[test]
fn a_64_bit_enclave_cannot_be_entered_in_32_bit_mode() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.base = 0x1000_0000;
    let status = spec.start(&mut machine, 0, Signer::a());
    machine.cpu.mode64 = false;

    let entered = machine.enclu(user::EENTER, 0x1000_0000, AEP, 0);

    assert_eq!(status, SgxStatus::Success);
    assert_eq!(entered, Err(GP));
}

#[test]
fn eenter_needs_an_initialized_enclave() {
    let mut machine = Machine::new(16);
    Spec::simple().load(&mut machine, 0).expect("the enclave can be built");

    assert_eq!(enter(&mut machine), Err(GP));
}

#[test]
fn eenter_checks_the_ssa_frame() {
    let ssa_fault = |fault: PageFaultCode| {
        let mut code = fault;
        code |= PageFaultCode::USER;
        code
    };
    let unmapped = refused(|machine| {
        machine.memory.mappings.remove(&SSA);
    });
    let read_only = refused(|machine| {
        machine.memory.mappings.insert(SSA, Mapping::Epc { index: EpcIndex(5), writable: false });
    });
    let not_epc = refused(|machine| {
        machine.memory.mappings.insert(SSA, Mapping::Ram { writable: true });
    });
    let other_page = refused(|machine| {
        machine.memory.mappings.insert(SSA, Mapping::Epc { index: EpcIndex(6), writable: true });
    });
    let not_writable = refused(|machine| tcs_quad(machine, 16, 0x2000));
    let blocked = refused(|machine| {
        machine.status(leaf::EBLOCK, 0, Machine::window(5), 0);
    });
    let thread = refused(|machine| tcs_quad(machine, 16, 0x1000));

    let pf =
        |address: u64, code: PageFaultCode| Stop::Fault(cloister_x86::Exception::pf(address, code));
    assert_eq!(unmapped, pf(SSA, ssa_fault(PageFaultCode::WRITE)));
    assert_eq!(read_only, pf(SSA, ssa_fault(PageFaultCode::WRITE | PageFaultCode::PRESENT)));
    assert_eq!(not_epc, epcm_fault(SSA, WU));
    assert_eq!(other_page, epcm_fault(SSA, WU), "at another page's address");
    assert_eq!(not_writable, epcm_fault(BASE + 0x2000, WU), "EPCM without W");
    assert_eq!(blocked, epcm_fault(SSA, WU), "BLOCKED");
    assert_eq!(thread, epcm_fault(BASE + 0x1000, WU), "PT_TCS");
}

#[test]
fn a_frame_of_several_pages_has_its_registers_in_the_last() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.ssaframesize = 2;
    let status = spec.start(&mut machine, 0, Signer::a());
    machine.cpu.gpr[Gpr::Rsp] = 0x7ffe_0000;

    let first = machine.memory.mappings.remove(&(SSA + 0x1000)).expect("mapped");
    let without_last = enter(&mut machine);
    machine.memory.mappings.insert(SSA + 0x1000, first);
    let entered = enter(&mut machine);

    assert_eq!(status, SgxStatus::Success);
    let Err(Stop::Fault(exception)) = without_last else { panic!("{without_last:?}") };
    assert_eq!(exception.address, SSA + 0x2000 - 184, "the fault names the GPRSGX region");
    assert_eq!(entered, Ok(()));
    assert_eq!(machine.platform.page(EpcIndex(6)).load(4096 - 184 + 144), 0x7ffe_0000);
}

#[test]
fn a_thread_is_entered_by_one_processor_at_a_time() {
    let mut machine = started();
    let mut second = Machine::on(machine.platform.clone());
    Spec::simple().map(&mut second, 0);
    enter(&mut machine).expect("EENTER completes");

    let same = second.enclu(user::EENTER, TCS, AEP, 0);
    let other = second.enclu(user::EENTER, TCS_2, AEP, 0);

    assert_eq!(same, Err(GP));
    assert!(other.is_ok());
}

#[test]
fn eremove_waits_for_the_last_thread() {
    let mut machine = started();
    enter(&mut machine).expect("EENTER completes");

    let inside = machine.eremove(4);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    let outside = machine.eremove(4);

    assert_eq!(inside, SgxStatus::EnclaveAct);
    assert_eq!(outside, SgxStatus::Success);
}

#[test]
fn a_processor_that_is_reset_inside_does_not_hold_the_enclave() {
    let mut machine = started();
    enter(&mut machine).expect("EENTER completes");

    machine.state.reset(&machine.platform);
    let removed: Vec<_> = (1..=8).map(|page| machine.eremove(page)).collect();

    assert!(!machine.state.in_enclave());
    assert_eq!(removed, [SgxStatus::Success; 8]);
    assert_eq!(machine.eremove(0), SgxStatus::Success);
}

#[test]
fn an_opt_in_entry_steps_and_keeps_tf() {
    let mut machine = started();
    machine.cpu.rflags |= TF;
    tcs_quad(&mut machine, 8, 1);

    let outcome = machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");

    assert_eq!(outcome.stepping, Stepping::Usual);
    assert_eq!(machine.cpu.rflags & TF, TF);
    assert!(!machine.state.debug_opt_out());
}

#[test]
fn a_32_bit_enclave_gets_segments_with_limits() {
    let mut machine = Machine::new(32);
    let mut spec = Spec::simple();
    spec.base = 0x1000_0000;
    spec.attributes = Attributes::new(AttributeFlags::DEBUG, 3);
    let status = spec.start(&mut machine, 0, Signer::a());
    machine.cpu.mode64 = false;
    machine.cpu.cs.rights = Rights(0xc0fb);
    machine.cpu.fs = machine.cpu.ds;

    let entered = machine.enclu(user::EENTER, 0xdead_0000_1000_0000, AEP, 0);

    assert_eq!(status, SgxStatus::Success);
    assert!(entered.is_ok());
    assert_eq!(machine.cpu.rip, 0x1000_2010);
    assert_eq!((machine.cpu.fs.base, machine.cpu.fs.limit), (0x1000_0000, 0xffff));
    let synthetic = machine.aex(ExitingEvent::Interrupt);
    assert!(synthetic.is_some());
    assert_eq!(machine.cpu.gpr[Gpr::Rbx], 0x1000_0000);
    assert_eq!(machine.cpu.fs, machine.cpu.ds);
}

#[test]
fn segments_must_be_flat_outside_64_bit_mode() {
    let run = |change: &dyn Fn(&mut Machine)| {
        let mut machine = Machine::new(32);
        let mut spec = Spec::simple();
        spec.base = 0x1000_0000;
        spec.attributes = Attributes::new(AttributeFlags::DEBUG, 3);
        spec.start(&mut machine, 0, Signer::a());
        machine.cpu.mode64 = false;
        change(&mut machine);
        machine.enclu(user::EENTER, 0x1000_0000, AEP, 0).map(drop)
    };

    assert_eq!(run(&|_| {}), Ok(()));
    assert_eq!(run(&|machine| machine.cpu.ds.rights.0 |= Rights::UNUSABLE), Err(GP), "DS null");
    assert_eq!(run(&|machine| machine.cpu.ds.rights.0 |= Rights::EC), Err(GP), "DS");
    assert_eq!(run(&|machine| machine.cpu.ds.base = 4096), Err(GP), "DS base");
    assert_eq!(run(&|machine| machine.cpu.cs.base = 4096), Err(GP), "CS base");
    assert_eq!(run(&|machine| machine.cpu.es.base = 4096), Err(GP), "ES base");
    assert_eq!(run(&|machine| machine.cpu.ss.base = 4096), Err(GP), "SS base");
    assert_eq!(run(&|machine| machine.cpu.ss.rights.0 &= !Rights::DB), Err(GP), "SS 16-bit");
    assert_eq!(run(&|machine| machine.cpu.cs.limit = 0x1000_0000), Err(GP), "entry point");
    assert_eq!(run(&|machine| machine.cpu.ds.limit = 0x1000_0000), Err(GP), "FS within DS");
    assert_eq!(
        run(&|machine| {
            machine.cpu.es.base = 4096;
            machine.cpu.es.rights.0 |= Rights::UNUSABLE;
        }),
        Ok(()),
        "ES null"
    );
}
