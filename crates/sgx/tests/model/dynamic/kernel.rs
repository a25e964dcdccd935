//! The paths of a kernel's driver and of an enclave's runtime that work together on pages: what
//! Linux does on a fault in ELRANGE and in its ioctls to restrict, change and remove pages.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{
    Access, AccessOutcome, AttributeFlags, EpcIndex, EpcmFlags, ExitingEvent, PageType, SgxStatus,
    check_access,
};
use cloister_x86::{Exception, La, PageFaultCode, Vector};

use super::secinfo::{MODIFIED, NONE, PENDING, PR, R, RW, SECINFO, X, put};
use crate::enclave::tcs;
use crate::machine::{Machine, epcm_fault};
use crate::order::Outcome;
use crate::scenario::{
    AEP, CODE, FOUR, SSA, Scenario, TCS, TWO, eaug, enter, epc, exit, map, modify, track,
};

const NEW: u64 = FOUR + 0x1000;
const NEW_PAGE: u32 = epc(NEW);
const WU: PageFaultCode = PageFaultCode::WRITE.union(PageFaultCode::USER);
/// Where the enclave's handler asks for.
const HANDLED: u64 = 0x40_4000;

/// An enclave that runs.
fn running() -> Scenario {
    let mut scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, NEW, 0);
    scenario.machine.xsave.image_mut(3).fill(0);
    scenario
}

fn access(machine: &Machine, la: u64, page: u32, access: Access) -> AccessOutcome {
    check_access(&machine.platform, &machine.state, La(la), Some(EpcIndex(page)), access)
}

/// EACCEPT by the enclave.
fn accept(scenario: &mut Scenario, la: u64) -> Outcome {
    scenario.rbx = SECINFO.la;
    scenario.rcx = la;
    scenario.enclu(user::EACCEPT)
}

/// What the kernel does to be sure that nobody has old translations: a new epoch, and an
/// interprocessor interrupt that takes every processor out.
fn shoot_down(machine: &mut Machine) {
    assert_eq!(track(machine), SgxStatus::Success);
    if machine.state.in_enclave() {
        machine.aex(ExitingEvent::Interrupt).expect("inside");
        machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");
    }
}

#[test]
fn a_page_is_added_when_the_enclave_touches_it() {
    let mut scenario = running();
    let rip = scenario.machine.cpu.rip;

    // The page tables have nothing there, the enclave faults, and the kernel adds a page.
    let fault = Exception::pf(NEW + 8, WU);
    scenario.machine.aex(ExitingEvent::Exception(fault)).expect("inside");
    eaug(&mut scenario.machine, NEW_PAGE, NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, NEW_PAGE);
    scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");
    let pending = access(&scenario.machine, NEW + 8, NEW_PAGE, Access::Write);

    // The access faults again, for the page is pending; now the enclave's handler accepts it.
    let AccessOutcome::Fault(exception) = pending else { panic!("{pending:?}") };
    scenario.machine.aex(ExitingEvent::Exception(exception)).expect("inside");
    let gprsgx = scenario.machine.platform.page(EpcIndex(epc(SSA + 0x1000)));
    let reported = (gprsgx.load(4096 - 184 + 160) as u32, gprsgx.load(4096 - 200));
    enter(&mut scenario.machine);
    put(&scenario, RW | PENDING, PageType::Reg);
    let accepted = accept(&mut scenario, NEW);
    scenario.machine.enclu(user::EEXIT, HANDLED, 0, 0).expect("EEXIT completes");
    scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

    assert_eq!(exception.vector, Vector::Pf);
    assert_eq!(reported, (1 << 31 | 3 << 8 | 14, NEW + 8), "EXITINFO and EXINFO.MADDR");
    assert_eq!(accepted, Ok(0));
    assert_eq!(scenario.machine.cpu.rip, rip, "the access is made once more");
    let after = access(&scenario.machine, NEW + 8, NEW_PAGE, Access::Write);
    assert_eq!(after, AccessOutcome::Allowed);
}

#[test]
fn code_is_loaded_into_a_new_page() {
    let mut scenario = running();
    eaug(&mut scenario.machine, NEW_PAGE, NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, NEW_PAGE);
    put(&scenario, R | X, PageType::Reg);
    scenario.rdx = CODE;

    let copied = scenario.enclu(user::EACCEPTCOPY);

    assert_eq!(copied, Ok(0));
    let page = scenario.machine.platform.page(EpcIndex(NEW_PAGE)).to_bytes();
    assert_eq!(page, [0x90; 4096]);
    let allowed = |kind| access(&scenario.machine, NEW, NEW_PAGE, kind) == AccessOutcome::Allowed;
    let rights = [Access::Read, Access::Write, Access::Execute].map(allowed);
    assert_eq!(rights, [true, false, true]);
}

#[test]
fn a_new_page_becomes_a_thread_that_is_entered() {
    let mut scenario = running();
    eaug(&mut scenario.machine, NEW_PAGE, NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, NEW_PAGE);
    put(&scenario, RW | PENDING, PageType::Reg);
    let added = accept(&mut scenario, NEW);
    // The enclave writes the TCS: frames of the second thread, which does not run.
    let contents = tcs(0x8000, 2, 0x2020);
    scenario.machine.platform.page(EpcIndex(NEW_PAGE)).write(0, &contents);

    let changed = modify(&mut scenario.machine, leaf::EMODT, NEW_PAGE, NONE, PageType::Tcs);
    let unreadable = access(&scenario.machine, NEW, NEW_PAGE, Access::Read);
    shoot_down(&mut scenario.machine);
    put(&scenario, MODIFIED, PageType::Tcs);
    let accepted = accept(&mut scenario, NEW);
    exit(&mut scenario.machine);
    let entered = scenario.machine.enclu(user::EENTER, NEW, AEP, 0).map(drop);

    assert_eq!((added, changed, accepted), (Ok(0), SgxStatus::Success, Ok(0)));
    assert!(matches!(unreadable, AccessOutcome::Fault(_)));
    assert_eq!(entered, Ok(()));
    assert_eq!(scenario.machine.cpu.rip, CODE + 0x20);
    assert_eq!(scenario.machine.platform.epcm(EpcIndex(NEW_PAGE)).flags, EpcmFlags::VALID);
}

#[test]
fn permissions_are_restricted_and_extended_again() {
    let mut scenario = running();
    let page = epc(TWO);

    let restricted = modify(&mut scenario.machine, leaf::EMODPR, page, R, PageType::Reg);
    shoot_down(&mut scenario.machine);
    put(&scenario, R | PR, PageType::Reg);
    let accepted = accept(&mut scenario, TWO);
    let read_only = access(&scenario.machine, TWO, page, Access::Write);
    put(&scenario, RW, PageType::Reg);
    scenario.rcx = TWO;
    let extended = scenario.enclu(user::EMODPE).map(drop);
    let writable = access(&scenario.machine, TWO, page, Access::Write);

    assert_eq!((restricted, accepted, extended), (SgxStatus::Success, Ok(0), Ok(())));
    assert_eq!(read_only, AccessOutcome::Fault(fault(TWO)));
    assert_eq!(writable, AccessOutcome::Allowed, "EMODPE needs no tracking");
}

fn fault(la: u64) -> Exception {
    Exception::pf(la, PageFaultCode::PRESENT | PageFaultCode::SGX | WU)
}

#[test]
fn a_page_is_trimmed_accepted_and_removed_while_the_enclave_runs() {
    let mut scenario = running();
    let page = epc(TWO);

    let trimmed = modify(&mut scenario.machine, leaf::EMODT, page, NONE, PageType::Trim);
    let too_early = scenario.machine.eremove(page);
    shoot_down(&mut scenario.machine);
    put(&scenario, MODIFIED, PageType::Trim);
    let accepted = accept(&mut scenario, TWO);
    let removed = scenario.machine.eremove(page);
    let again = accept(&mut scenario, TWO);

    assert_eq!((trimmed, accepted), (SgxStatus::Success, Ok(0)));
    assert_eq!(too_early, SgxStatus::EnclaveAct);
    assert_eq!(removed, SgxStatus::Success);
    assert_eq!(again, Err(epcm_fault(TWO, PageFaultCode::USER)), "not VALID");
    assert!(scenario.machine.state.in_enclave());
}

#[test]
fn a_removed_page_is_added_anew_elsewhere() {
    let mut scenario = running();
    let page = epc(TWO);
    scenario.machine.platform.page(EpcIndex(page)).write(0, b"secret");
    modify(&mut scenario.machine, leaf::EMODT, page, NONE, PageType::Trim);
    shoot_down(&mut scenario.machine);
    put(&scenario, MODIFIED, PageType::Trim);
    accept(&mut scenario, TWO).expect("EACCEPT completes");
    scenario.machine.eremove(page);

    eaug(&mut scenario.machine, page, NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, page);
    put(&scenario, RW | PENDING, PageType::Reg);
    let accepted = accept(&mut scenario, NEW);

    assert_eq!(accepted, Ok(0));
    assert_eq!(scenario.machine.platform.page(EpcIndex(page)).to_bytes(), [0; 4096]);
}
