//! EAUG, EMODPR, EMODT, EACCEPT, EMODPE and EACCEPTCOPY.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{
    Access, AccessOutcome, EpcIndex, EpcmFlags, PageType, SgxStatus, Stop, check_access,
};
use cloister_x86::{Gpr, La, PageFaultCode};
use zerocopy::IntoBytes as _;

use crate::enclave::{BASE, CODE, DATA, PAGEINFO, SECINFO, Spec, TCS, started, tcs};
use crate::machine::{GP, Machine, Mapping, epcm_fault};

/// The page that grows the enclave, and its place in the EPC.
const NEW: u64 = BASE + 0x8000;
const NEW_PAGE: u32 = 12;
const MISMATCH: u64 = SgxStatus::PageAttributesMismatch as u64;
const NOT_TRACKED: u64 = SgxStatus::NotTracked as u64;
const RW: SecInfoFlags = SecInfoFlags::R.union(SecInfoFlags::W);
const NONE: SecInfoFlags = SecInfoFlags::empty();

fn eaug(machine: &mut Machine, target: u32, linaddr: u64) -> Result<(), Stop> {
    let pageinfo = PageInfo {
        linaddr: linaddr.into(),
        secs: Machine::window(0).into(),
        ..PageInfo::default()
    };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::EAUG, PAGEINFO, Machine::window(target), 0).map(drop)
}

/// A machine with a pending page at [`NEW`].
fn augmented() -> Machine {
    let mut machine = started();
    eaug(&mut machine, NEW_PAGE, NEW).expect("EAUG completes");
    map(&mut machine, NEW, NEW_PAGE);
    machine
}

fn map(machine: &mut Machine, la: u64, page: u32) {
    let mapping = Mapping::Epc { index: EpcIndex(page), writable: true };
    machine.memory.mappings.insert(la, mapping);
}

fn enter(machine: &mut Machine) {
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
}

/// Puts a SECINFO into the enclave's data page and runs `number` from inside.
fn inside(
    machine: &mut Machine,
    number: u32,
    secinfo: SecInfo,
    target: u64,
    source: u64,
) -> Result<u64, Stop> {
    if !machine.state.in_enclave() {
        enter(machine);
    }
    machine.platform.page(EpcIndex(4)).write(0x40, secinfo.as_bytes());
    machine.enclu(number, DATA + 0x40, target, source)?;
    Ok(machine.cpu.gpr[Gpr::Rax])
}

fn eaccept(machine: &mut Machine, secinfo: SecInfo, target: u64) -> Result<u64, Stop> {
    inside(machine, user::EACCEPT, secinfo, target, 0)
}

fn secinfo(flags: SecInfoFlags, page_type: PageType) -> SecInfo {
    SecInfo::new(flags, page_type)
}

fn modify(
    machine: &mut Machine,
    number: u32,
    page: u32,
    secinfo: SecInfo,
) -> Result<SgxStatus, Stop> {
    machine.operand(SECINFO, &secinfo);
    let outcome = machine.encls(number, SECINFO, Machine::window(page), 0)?;
    Ok(outcome.status.expect("it reports"))
}

fn track(machine: &mut Machine) -> SgxStatus {
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0)
}

fn readable(machine: &Machine, la: u64, page: u32) -> bool {
    let page = Some(EpcIndex(page));
    check_access(&machine.platform, &machine.state, La(la), page, Access::Read)
        == AccessOutcome::Allowed
}

#[test]
fn an_added_page_is_zero_pending_and_needs_acceptance() {
    let mut machine = augmented();
    let view = machine.platform.epcm(EpcIndex(NEW_PAGE));
    enter(&mut machine);

    let before = readable(&machine, NEW, NEW_PAGE);
    let accepted = eaccept(&mut machine, secinfo(RW | SecInfoFlags::PENDING, PageType::Reg), NEW);
    let after = readable(&machine, NEW, NEW_PAGE);

    let rw = EpcmFlags::R | EpcmFlags::W;
    assert_eq!(view.flags, EpcmFlags::VALID | EpcmFlags::PENDING | rw);
    assert_eq!(machine.platform.page(EpcIndex(NEW_PAGE)).to_bytes(), [0; 4096]);
    assert!(!before);
    assert_eq!(accepted, Ok(0));
    assert!(after);
}

#[test]
fn eaug_checks_enclave_and_operands() {
    let mut built = Machine::new(32);
    Spec::simple().load(&mut built, 0).expect("the enclave can be built");
    let mut machine = started();
    let write = PageFaultCode::WRITE;

    assert_eq!(eaug(&mut built, NEW_PAGE, NEW), Err(GP), "not initialized");
    assert_eq!(eaug(&mut machine, NEW_PAGE, BASE + 0x10000), Err(GP), "beyond ELRANGE");
    assert_eq!(eaug(&mut machine, NEW_PAGE, BASE - 0x1000), Err(GP), "before ELRANGE");
    assert_eq!(eaug(&mut machine, NEW_PAGE, NEW + 8), Err(GP), "alignment");
    let used = epcm_fault(Machine::window(4), write);
    assert_eq!(eaug(&mut machine, 4, NEW), Err(used), "VALID");
    let mut with = |pageinfo: PageInfo| {
        machine.operand(PAGEINFO, &pageinfo);
        machine.encls(leaf::EAUG, PAGEINFO, Machine::window(NEW_PAGE), 0).map(drop)
    };
    let good =
        PageInfo { linaddr: NEW.into(), secs: Machine::window(0).into(), ..PageInfo::default() };
    assert_eq!(with(PageInfo { srcpge: 4096.into(), ..good }), Err(GP), "SRCPGE");
    assert_eq!(with(PageInfo { secinfo: SECINFO.into(), ..good }), Err(GP), "no CET");
    let child = Machine::window(4);
    assert_eq!(with(PageInfo { secs: child.into(), ..good }), Err(epcm_fault(child, write)));
    assert_eq!(with(good), Ok(()));
}

#[test]
fn eaccept_compares_what_the_enclave_expects() {
    let mut machine = augmented();
    let pending = SecInfoFlags::PENDING;
    let reg = PageType::Reg;

    assert_eq!(
        eaccept(&mut machine, secinfo(SecInfoFlags::R | pending, reg), NEW),
        Ok(MISMATCH),
        "permissions"
    );
    assert_eq!(eaccept(&mut machine, secinfo(RW | SecInfoFlags::PR, reg), NEW), Ok(MISMATCH));
    assert_eq!(eaccept(&mut machine, secinfo(RW, reg), NEW), Err(GP), "nothing to accept");
    assert_eq!(eaccept(&mut machine, secinfo(RW | pending, PageType::Tcs), NEW), Err(GP));
    assert_eq!(
        eaccept(&mut machine, secinfo(NONE | pending, PageType::Trim), NEW),
        Err(GP),
        "a trimmed page is not pending"
    );
    let reserved = SecInfo { reserved: [1; 56], ..secinfo(RW | pending, reg) };
    assert_eq!(eaccept(&mut machine, reserved, NEW), Err(GP), "reserved");
    assert_eq!(eaccept(&mut machine, secinfo(RW | pending, reg), NEW + 64), Err(GP), "alignment");
    assert_eq!(
        eaccept(&mut machine, secinfo(RW | pending, reg), BASE + 0x10000),
        Err(GP),
        "outside ELRANGE"
    );
}

#[test]
fn restricted_permissions_hold_at_once_and_are_accepted_after_tracking() {
    let mut machine = started();
    enter(&mut machine);
    let request = secinfo(SecInfoFlags::R, PageType::Reg);
    let accept = secinfo(SecInfoFlags::R | SecInfoFlags::PR, PageType::Reg);

    let restricted = modify(&mut machine, leaf::EMODPR, 4, request);
    let write =
        check_access(&machine.platform, &machine.state, La(DATA), Some(EpcIndex(4)), Access::Write);
    // The SECINFO lies in the restricted page, which stays readable.
    let early = eaccept(&mut machine, accept, DATA);
    let tracked = track(&mut machine);
    let too_early = eaccept(&mut machine, accept, DATA);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    let late = eaccept(&mut machine, accept, DATA);

    assert_eq!(restricted, Ok(SgxStatus::Success));
    assert!(matches!(write, AccessOutcome::Fault(_)));
    assert_eq!(early, Ok(NOT_TRACKED));
    assert_eq!(tracked, SgxStatus::Success);
    assert_eq!(too_early, Ok(NOT_TRACKED), "this thread itself is inside since before");
    assert_eq!(late, Ok(0));
    let flags = machine.platform.epcm(EpcIndex(4)).flags;
    assert_eq!(flags, EpcmFlags::VALID | EpcmFlags::R);
}

#[test]
fn the_enclave_extends_permissions_by_itself() {
    let mut machine = started();
    let executable = secinfo(SecInfoFlags::R | SecInfoFlags::X, PageType::Reg);

    let extended = inside(&mut machine, user::EMODPE, executable, BASE + 0x5000, 0);
    let code = inside(&mut machine, user::EMODPE, secinfo(SecInfoFlags::W, PageType::Reg), CODE, 0);
    let thread = inside(&mut machine, user::EMODPE, executable, TCS, 0);

    assert!(extended.is_ok());
    let all = EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::W | EpcmFlags::X;
    assert_eq!(machine.platform.epcm(EpcIndex(6)).flags, all);
    assert!(code.is_ok());
    assert_eq!(machine.platform.epcm(EpcIndex(3)).flags, all);
    assert_eq!(thread, Err(epcm_fault(TCS, PageFaultCode::USER)));
}

#[test]
fn a_page_must_not_become_writable_without_being_readable() {
    let mut machine = started();
    modify(&mut machine, leaf::EMODPR, 6, secinfo(NONE, PageType::Reg)).expect("completes");
    let write = secinfo(SecInfoFlags::W, PageType::Reg);

    let refused = inside(&mut machine, user::EMODPE, write, BASE + 0x5000, 0);
    let restricting = modify(&mut machine, leaf::EMODPR, 7, write);

    assert_eq!(refused, Err(GP));
    assert_eq!(restricting, Err(GP));
}

#[test]
fn a_page_is_trimmed_and_removed_while_threads_run() {
    let mut machine = started();
    let trim = secinfo(NONE, PageType::Trim);
    let accept = secinfo(SecInfoFlags::MODIFIED, PageType::Trim);

    let changed = modify(&mut machine, leaf::EMODT, 6, trim);
    let again = modify(&mut machine, leaf::EMODT, 6, trim);
    track(&mut machine);
    let accepted = eaccept(&mut machine, accept, BASE + 0x5000);
    let removed = machine.eremove(6);

    assert_eq!(changed, Ok(SgxStatus::Success));
    let write = PageFaultCode::WRITE;
    assert_eq!(again, Err(epcm_fault(Machine::window(6), write)), "PT_TRIM cannot change");
    assert_eq!(accepted, Ok(0));
    assert!(machine.state.in_enclave());
    assert_eq!(removed, SgxStatus::Success);
    assert!(!machine.platform.epcm(EpcIndex(6)).valid());
}

#[test]
fn an_unaccepted_trim_is_not_removed_while_threads_run() {
    let mut machine = started();
    modify(&mut machine, leaf::EMODT, 6, secinfo(NONE, PageType::Trim)).expect("completes");
    enter(&mut machine);

    assert_eq!(machine.eremove(6), SgxStatus::EnclaveAct);
}

#[test]
fn a_regular_page_becomes_a_thread() {
    let mut machine = augmented();
    let pending = secinfo(RW | SecInfoFlags::PENDING, PageType::Reg);
    let accept = secinfo(SecInfoFlags::MODIFIED, PageType::Tcs);
    eaccept(&mut machine, pending, NEW).expect("EACCEPT completes");
    machine.platform.page(EpcIndex(NEW_PAGE)).write(0, &tcs(0x4000, 2, 0x2010));
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");

    let changed = modify(&mut machine, leaf::EMODT, NEW_PAGE, secinfo(NONE, PageType::Tcs));
    track(&mut machine);
    let unaccepted = machine.enclu(user::EENTER, NEW, 0x40_2000, 0);
    let accepted = eaccept(&mut machine, accept, NEW);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    let entered = machine.enclu(user::EENTER, NEW, 0x40_2000, 0);

    assert_eq!(changed, Ok(SgxStatus::Success));
    let fault = PageFaultCode::USER | PageFaultCode::WRITE;
    assert_eq!(unaccepted, Err(epcm_fault(NEW, fault)));
    assert_eq!(accepted, Ok(0));
    assert!(entered.is_ok());
}

#[test]
fn a_page_that_is_no_good_tcs_is_not_accepted_as_one() {
    let run = |at: usize, value: u64| {
        let mut machine = started();
        machine.platform.page(EpcIndex(6)).write(0, &tcs(0x4000, 2, 0x2010));
        machine.platform.page(EpcIndex(6)).store(at, value);
        modify(&mut machine, leaf::EMODT, 6, secinfo(NONE, PageType::Tcs)).expect("completes");
        track(&mut machine);
        eaccept(&mut machine, secinfo(SecInfoFlags::MODIFIED, PageType::Tcs), BASE + 0x5000)
    };

    assert_eq!(run(32, 0x2010), Ok(0));
    assert_eq!(run(0, 1), Err(GP), "STATE");
    assert_eq!(run(8, 1), Err(GP), "DBGOPTIN");
    assert_eq!(run(24, 2 << 32 | 2), Err(GP), "CSSA");
    assert_eq!(run(40, 1), Err(GP), "AEP");
    assert_eq!(run(4088, 1), Err(GP), "reserved");
}

#[test]
fn emodpr_and_emodt_check_the_page() {
    let mut machine = augmented();
    let read = secinfo(SecInfoFlags::R, PageType::Reg);
    let thread = secinfo(NONE, PageType::Tcs);
    let trim = secinfo(NONE, PageType::Trim);
    let fault = |page: u32| epcm_fault(Machine::window(page), PageFaultCode::WRITE);
    let busy = Ok(SgxStatus::PageNotModifiable);

    assert_eq!(modify(&mut machine, leaf::EMODPR, NEW_PAGE, read), busy, "PENDING");
    assert_eq!(modify(&mut machine, leaf::EMODT, NEW_PAGE, trim), busy, "PENDING");
    assert_eq!(modify(&mut machine, leaf::EMODPR, 1, read), Err(fault(1)), "PT_TCS");
    assert_eq!(modify(&mut machine, leaf::EMODPR, 0, read), Err(fault(0)), "PT_SECS");
    assert_eq!(modify(&mut machine, leaf::EMODPR, 25, read), Err(fault(25)), "not VALID");
    assert_eq!(modify(&mut machine, leaf::EMODT, 25, trim), Err(fault(25)), "not VALID");
    assert_eq!(modify(&mut machine, leaf::EMODT, 1, thread), Err(fault(1)), "TCS to TCS");
    assert_eq!(modify(&mut machine, leaf::EMODT, 0, trim), Err(fault(0)), "PT_SECS");
    let reg = secinfo(NONE, PageType::Reg);
    assert_eq!(modify(&mut machine, leaf::EMODT, 4, reg), Err(GP), "to PT_REG");
    assert_eq!(modify(&mut machine, leaf::EMODT, 1, trim), Ok(SgxStatus::Success), "TCS to TRIM");
}

#[test]
fn eacceptcopy_fills_a_pending_page() {
    let mut machine = augmented();
    let request = secinfo(SecInfoFlags::R | SecInfoFlags::X, PageType::Reg);

    let copied = inside(&mut machine, user::EACCEPTCOPY, request, NEW, CODE);
    let again = inside(&mut machine, user::EACCEPTCOPY, request, NEW, CODE);

    assert_eq!(copied, Ok(0));
    assert_eq!(machine.platform.page(EpcIndex(NEW_PAGE)).to_bytes(), [0x90; 4096]);
    let view = machine.platform.epcm(EpcIndex(NEW_PAGE));
    assert_eq!(view.flags, EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::X);
    assert_eq!(again, Ok(MISMATCH), "no longer pending");
}

#[test]
fn eacceptcopy_checks_request_and_source() {
    let mut machine = augmented();
    let mut run = |request: SecInfo, source: u64| {
        inside(&mut machine, user::EACCEPTCOPY, request, NEW, source)
    };
    let good = secinfo(RW, PageType::Reg);

    assert_eq!(run(secinfo(SecInfoFlags::W, PageType::Reg), CODE), Err(GP), "W without R");
    assert_eq!(run(secinfo(RW, PageType::Tcs), CODE), Err(GP), "PT_TCS");
    assert_eq!(run(good, CODE + 64), Err(GP), "alignment");
    assert_eq!(run(good, TCS), Err(epcm_fault(TCS, PageFaultCode::USER)), "source a TCS");
    assert_eq!(run(good, BASE + 0x10000), Err(GP), "outside ELRANGE");
    assert_eq!(run(good, CODE), Ok(0));
}
