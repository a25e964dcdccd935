//! Leaves on pages of an enclave with a thread inside.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::SecInfoFlags;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, PageType, SgxStatus};
use cloister_x86::PageFaultCode;

use crate::machine::{Machine, epcm_fault};
use crate::scenario::{AEP, FOUR, SSA, TCS, TCS_2, enter, epc, exit, modify, outside, spec, track};

/// A processor inside on the first thread, and another one outside.
fn one_inside() -> (Machine, Machine) {
    let mut machine = outside(AttributeFlags::empty());
    let mut kernel = Machine::on(machine.platform.clone());
    spec(AttributeFlags::empty()).map(&mut kernel, 0);
    enter(&mut machine);
    (machine, kernel)
}

#[test]
fn no_page_is_removed_while_a_thread_is_inside() {
    let (mut machine, mut kernel) = one_inside();

    let inside: Vec<_> = [TCS, TCS_2, SSA, FOUR].map(|la| kernel.eremove(epc(la))).into();
    let secs = kernel.eremove(0);
    machine.aex(ExitingEvent::Interrupt).expect("inside");
    let after = [TCS, TCS_2, SSA, FOUR].map(|la| kernel.eremove(epc(la)));

    assert_eq!(inside, [SgxStatus::EnclaveAct; 4]);
    assert_eq!(secs, SgxStatus::ChildPresent);
    assert_eq!(after, [SgxStatus::Success; 4], "an AEX counts as leaving");
}

#[test]
fn a_thread_that_loses_its_tcs_runs_on_and_does_not_come_back() {
    let (mut machine, mut kernel) = one_inside();
    machine.xsave.image_mut(3).fill(0);
    let fault = PageFaultCode::USER | PageFaultCode::WRITE;

    let changed = modify(&mut kernel, leaf::EMODT, epc(TCS), SecInfoFlags::empty(), PageType::Trim);
    track(&mut kernel);
    let removed = kernel.eremove(epc(TCS));
    let left = machine.aex(ExitingEvent::Interrupt);
    let resumed = machine.enclu(user::ERESUME, TCS, AEP, 0).map(drop);

    assert_eq!(changed, SgxStatus::Success);
    assert_eq!(removed, SgxStatus::EnclaveAct);
    assert!(left.is_some(), "an AEX never fails");
    assert_eq!(resumed, Err(epcm_fault(TCS, fault)));
}

#[test]
fn a_blocked_frame_takes_an_aex_and_no_entry() {
    let (mut machine, mut kernel) = one_inside();
    let page = EpcIndex(epc(SSA + 0x1000));
    let fault = PageFaultCode::USER | PageFaultCode::WRITE;
    machine.xsave.image_mut(3).fill(0);
    machine.cpu.rip = 0x1234;

    kernel.status(leaf::EBLOCK, 0, Machine::window(epc(SSA)), 0);
    kernel.status(leaf::EBLOCK, 0, Machine::window(page.0), 0);
    let left = machine.aex(ExitingEvent::Interrupt);
    let resumed = machine.enclu(user::ERESUME, TCS, AEP, 0).map(drop);

    assert!(left.is_some());
    assert_eq!(machine.platform.page(page).load(4096 - 184 + 136), 0x1234, "RIP");
    assert_eq!(resumed, Err(epcm_fault(SSA, fault)));
}

#[test]
fn etrack_waits_for_those_who_entered_before_the_last_one() {
    let (mut machine, mut kernel) = one_inside();
    kernel.enclu(user::EENTER, TCS_2, AEP, 0).expect("EENTER completes");

    let first = track(&mut kernel);
    let second = track(&mut kernel);
    exit(&mut machine);
    let with_one_left = track(&mut kernel);
    exit(&mut kernel);
    let with_none = track(&mut kernel);

    assert_eq!(first, SgxStatus::Success);
    assert_eq!(second, SgxStatus::PrevTrkIncmpl);
    assert_eq!(with_one_left, SgxStatus::PrevTrkIncmpl);
    assert_eq!(with_none, SgxStatus::Success);
}
