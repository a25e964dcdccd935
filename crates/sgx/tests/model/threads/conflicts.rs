//! The concurrency tables (SDM Vol. 3D, tables 38-6 and 38-7): what the loser of a conflict gets.
//! One leaf runs while another one is in the midst of its own.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{PageInfo, SecInfoFlags};
use cloister_sgx::{AttributeFlags, EpcIndex, PageType, SgxStatus, Stop};

use crate::enclave::PAGEINFO;
use crate::machine::{GP, Machine, OPERANDS};
use crate::meanwhile::meanwhile;
use crate::order::Outcome;
use crate::scenario::{
    AEP, FOUR, SSA, TCS, TCS_2, VA, eaug, enter, epc, exit, make_va, modify, outside, spec, track,
};

const NONE: SecInfoFlags = SecInfoFlags::empty();
/// Where an evicted page and its PCMD go.
const EVICTED: u64 = OPERANDS + 0x8000;
const PCMD: u64 = OPERANDS + 0x1_0000;
const CONFLICT: Outcome = Ok(SgxStatus::EpcPageConflict as u64);

/// Another processor on the platform of `machine`, with the enclave mapped.
fn another(machine: &Machine) -> Machine {
    let mut other = Machine::on(machine.platform.clone());
    spec(AttributeFlags::empty()).map(&mut other, 0);
    other.memory.le_hash = machine.memory.le_hash;
    other
}

fn eenter(machine: &mut Machine) -> Result<(), Stop> {
    machine.enclu(user::EENTER, TCS, AEP, 0).map(drop)
}

fn ewb(machine: &mut Machine, page: u32) -> Outcome {
    machine.memory.put(EVICTED, &[0; 4096]);
    machine.memory.put(PCMD, &[0; 128]);
    let pageinfo = PageInfo { srcpge: EVICTED.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    let slot = Machine::window(VA) + 8 * u64::from(page);
    let outcome = machine.encls(leaf::EWB, PAGEINFO, Machine::window(page), slot)?;
    Ok(outcome.status.expect("EWB reports").rax())
}

fn eblock(machine: &mut Machine, page: u32) {
    machine.status(leaf::EBLOCK, 0, Machine::window(page), 0);
}

fn emod(machine: &mut Machine, number: u32, page: u32) -> Outcome {
    let secinfo = OPERANDS + 0x2_0000;
    machine.memory.put(secinfo, &[0, PageType::Trim as u8]);
    machine.memory.put(secinfo + 2, &[0; 62]);
    let outcome = machine.encls(number, secinfo, Machine::window(page), 0)?;
    Ok(outcome.status.expect("it reports").rax())
}

/// The outcome for another processor of `act` while EENTER checks the SSA of a thread.
fn during_entry<T: Send>(act: impl FnOnce(&mut Machine) -> T + Send) -> (T, Result<(), Stop>) {
    let mut machine = outside(AttributeFlags::empty());
    make_va(&mut machine);
    let mut other = another(&machine);
    let (entered, outcome) = meanwhile(&mut machine, SSA, eenter, || act(&mut other));
    (outcome, entered)
}

/// The outcome of `act` while EWB writes page `page`, which nobody uses, to memory.
fn during_eviction<T: Send>(page: u32, act: impl FnOnce(&mut Machine) -> T + Send) -> T {
    let mut machine = outside(AttributeFlags::empty());
    make_va(&mut machine);
    eblock(&mut machine, page);
    track(&mut machine);
    let mut other = another(&machine);
    let evict = |machine: &mut Machine| ewb(machine, page);
    let (evicted, outcome) = meanwhile(&mut machine, EVICTED, evict, || act(&mut other));
    assert_eq!(evicted, Ok(0));
    outcome
}

/// The outcome of `act` while EAUG of EPC page 30 reads a SECINFO.
fn during_addition<T: Send>(act: impl FnOnce(&mut Machine) -> T + Send) -> T {
    let mut machine = outside(AttributeFlags::empty());
    let secinfo = OPERANDS + 0x3_0000;
    machine.memory.put(secinfo, &[0; 64]);
    let pageinfo = PageInfo {
        linaddr: (FOUR + 0x1000).into(),
        secinfo: secinfo.into(),
        secs: Machine::window(0).into(),
        ..PageInfo::default()
    };
    machine.operand(PAGEINFO, &pageinfo);
    let mut other = another(&machine);
    let add = |machine: &mut Machine| machine.encls(leaf::EAUG, PAGEINFO, Machine::window(30), 0);
    let (added, outcome) = meanwhile(&mut machine, secinfo, add, || act(&mut other));
    assert_eq!(added, Err(GP), "a shadow stack without CET");
    outcome
}

#[test]
fn a_thread_that_is_being_entered_is_shared() {
    let evicted = during_entry(|other| ewb(other, epc(TCS)));
    let removed =
        during_entry(|other| other.encls(leaf::EREMOVE, 0, Machine::window(epc(TCS)), 0).map(drop));
    let changed = during_entry(|other| emod(other, leaf::EMODT, epc(TCS)));

    assert_eq!(evicted, (Err(GP), Ok(())));
    assert_eq!(removed, (Err(GP), Ok(())));
    assert_eq!(changed, (CONFLICT, Ok(())));
}

#[test]
fn a_thread_is_entered_once_while_another_entry_checks_it() {
    let same = during_entry(|other| other.enclu(user::EENTER, TCS, AEP, 0).map(drop));
    let resumed = during_entry(|other| other.enclu(user::ERESUME, TCS, AEP, 0).map(drop));
    let another = during_entry(|other| other.enclu(user::EENTER, TCS_2, AEP, 0).map(drop));

    assert_eq!(same, (Err(GP), Ok(())));
    assert_eq!(resumed, (Err(GP), Ok(())));
    assert_eq!(another, (Ok(()), Ok(())));
}

#[test]
fn a_thread_that_is_locked_cannot_be_entered() {
    let entered = during_eviction(epc(TCS), |other| other.enclu(user::EENTER, TCS, AEP, 0));
    let resumed = during_eviction(epc(TCS), |other| other.enclu(user::ERESUME, TCS, AEP, 0));

    assert_eq!(entered, Err(GP), "before #PF for BLOCKED");
    assert_eq!(resumed, Err(GP), "before #PF for BLOCKED");
}

#[test]
fn a_locked_page_cannot_be_changed() {
    let page = epc(FOUR);
    let restricted = during_eviction(page, move |other| emod(other, leaf::EMODPR, page));
    let changed = during_eviction(page, move |other| emod(other, leaf::EMODT, page));
    let new_restricted = during_addition(|other| emod(other, leaf::EMODPR, 30));
    let new_changed = during_addition(|other| emod(other, leaf::EMODT, 30));

    assert_eq!(restricted, Err(GP));
    assert_eq!(changed, CONFLICT);
    assert_eq!(new_restricted, Err(GP), "before #PF for VALID");
    assert_eq!(new_changed, CONFLICT, "before #PF for VALID");
}

#[test]
fn a_page_that_is_being_added_is_not_added_again() {
    let again = during_addition(|other| eaug(other, 30, FOUR + 0x1000));

    assert_eq!(again, Err(GP));
}

#[test]
fn a_valid_page_that_is_locked_is_a_conflict_before_it_is_valid() {
    let page = epc(FOUR);
    let added = during_eviction(page, move |other| eaug(other, page, FOUR));

    assert_eq!(added, Err(GP));
}

#[test]
fn nothing_is_added_to_an_enclave_whose_secs_is_locked() {
    let mut machine = outside(AttributeFlags::empty());
    make_va(&mut machine);
    for page in 1..=epc(FOUR) {
        machine.eremove(page);
    }
    let mut other = another(&machine);

    let (evicted, added) = meanwhile(
        &mut machine,
        EVICTED,
        |machine| ewb(machine, 0),
        || eaug(&mut other, 30, FOUR + 0x1000),
    );

    assert_eq!(evicted, Ok(0));
    assert_eq!(added, Err(GP));
}

#[test]
fn a_frame_page_stays_from_its_check_until_the_thread_has_left() {
    let mut machine = outside(AttributeFlags::empty());
    make_va(&mut machine);
    let frame = epc(SSA);
    let mut other = another(&machine);

    // The first page of the frame has been checked when the second one is reached.
    let (entered, removed) = meanwhile(&mut machine, SSA + 0x1000, eenter, || {
        let removed = other.eremove(frame);
        eblock(&mut other, frame);
        let tracked = track(&mut other);
        (removed, tracked, ewb(&mut other, frame))
    });

    let not_tracked = Ok(SgxStatus::NotTracked as u64);
    assert_eq!(entered, Ok(()));
    assert_eq!(removed, (SgxStatus::EnclaveAct, SgxStatus::Success, not_tracked));
    assert!(machine.platform.epcm(EpcIndex(frame)).valid());
    exit(&mut machine);
    assert_eq!(ewb(&mut machine, frame), Ok(0));
}

#[test]
fn an_entry_that_fails_leaves_nobody_inside() {
    let mut machine = outside(AttributeFlags::empty());
    machine.memory.mappings.remove(&(SSA + 0x1000));

    let entered = machine.enclu(user::EENTER, TCS, AEP, 0);

    assert!(entered.is_err());
    assert_eq!(machine.eremove(epc(FOUR)), SgxStatus::Success);
    assert_eq!(machine.platform.page(EpcIndex(epc(TCS))).load(0), 0, "TCS.STATE");
}

#[test]
fn a_failed_entry_of_an_earlier_epoch_is_counted_out_of_it() {
    let mut machine = outside(AttributeFlags::empty());
    machine.memory.mappings.remove(&(SSA + 0x1000));
    let mut other = another(&machine);

    let (entered, tracked) = meanwhile(&mut machine, SSA + 0x1000, eenter, || track(&mut other));

    assert!(entered.is_err());
    assert_eq!(tracked, SgxStatus::Success);
    assert_eq!(track(&mut machine), SgxStatus::Success, "nobody of the previous epoch is inside");
}

#[test]
fn another_thread_may_enter_while_a_page_is_evicted() {
    let page = epc(FOUR);
    let entered = during_eviction(page, |other| {
        enter(other);
        other.state.in_enclave()
    });

    assert!(entered);
}

#[test]
fn a_trimmed_thread_is_tracked_like_any_page() {
    let mut machine = outside(AttributeFlags::empty());
    enter(&mut machine);

    let status = modify(&mut machine, leaf::EMODT, epc(TCS), NONE, PageType::Trim);

    assert_eq!(status, SgxStatus::Success, "EMODT asks nobody to leave");
}
