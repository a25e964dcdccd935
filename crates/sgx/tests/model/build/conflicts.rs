//! Two processors at one EPC page: who conflicts with whom (SDM Vol. 3D, tables 38-6 and 38-7), and
//! which check of the loser's leaf that comes before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{Conflict, EpcIndex, LeafOutcome, PageType, SgxStatus, Stop};
use cloister_x86::{La, PageFaultCode};

use super::{RW, W, occupy};
use crate::enclave::{BASE, PAGEINFO, Page, SECINFO, SOURCE, Spec};
use crate::machine::{GP, Machine, OPERANDS, epcm_fault};
use crate::meanwhile::meanwhile;
use crate::signer::Signer;

const EVICTED: u64 = OPERANDS + 0x8000;
const PCMD: u64 = OPERANDS + 0x1_0000;
/// The EPC pages of the tests: [`Spec::simple`] from page 0, another SECS and a version array.
const OTHER: u32 = 20;
const VA: u32 = 21;

/// A machine with an enclave, an SECS without children and a version array.
fn machine() -> Machine {
    let mut machine = Machine::new(32);
    Spec::simple().load(&mut machine, 0).expect("the enclave can be built");
    Spec::simple().ecreate(&mut machine, OTHER).expect("another enclave");
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    machine
}

/// Evicts [`OTHER`], exclusively held meanwhile, as is VA, though shared; what `turn` does on
/// another processor while the page is written out.
fn while_evicting<T: Send>(
    machine: &mut Machine,
    turn: impl FnOnce(&mut Machine) -> T + Send,
) -> T {
    machine.memory.put(EVICTED, &[0; 4096]);
    machine.memory.put(PCMD, &[0; 128]);
    let pageinfo = PageInfo { srcpge: EVICTED.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    let mut second = Machine::on(machine.platform.clone());
    let ewb = |machine: &mut Machine| {
        machine.status(leaf::EWB, PAGEINFO, Machine::window(OTHER), Machine::window(VA))
    };
    let (status, outcome) = meanwhile(machine, EVICTED, ewb, || turn(&mut second));
    assert_eq!(status, SgxStatus::Success);
    outcome
}

/// Adds page 12 to the enclave of page 0: what `turn` does on another processor while the source
/// is read. The SECS is shared then and the new page held.
fn while_adding<T: Send>(machine: &mut Machine, turn: impl FnOnce(&mut Machine) -> T + Send) -> T {
    let spec = Spec::simple();
    machine.operand(SECINFO, &SecInfo::new(RW, PageType::Reg));
    let pageinfo = PageInfo {
        linaddr: (spec.base + 0x8000).into(),
        srcpge: SOURCE.into(),
        secinfo: SECINFO.into(),
        secs: Machine::window(0).into(),
    };
    machine.operand(PAGEINFO, &pageinfo);
    let mut second = Machine::on(machine.platform.clone());
    let (added, outcome) = meanwhile(machine, SOURCE, eadd, || turn(&mut second));
    assert_eq!(added.map(|added| added.status), Ok(None));
    outcome
}

/// Adds page 12 as [`PAGEINFO`] says.
fn eadd(machine: &mut Machine) -> Result<LeafOutcome, Stop> {
    machine.encls(leaf::EADD, PAGEINFO, Machine::window(12), 0)
}

fn refused(outcome: Result<LeafOutcome, Stop>) -> Result<(), Stop> {
    outcome.map(drop)
}

#[test]
fn a_page_that_is_being_evicted_is_in_use_before_it_is_valid() {
    let spec = Spec::simple();
    let page = Page::reg(0x8000, RW, [1; 4096]);
    let at = Machine::window(OTHER);

    let created = while_evicting(&mut machine(), |second| spec.ecreate(second, OTHER));
    let added = while_evicting(&mut machine(), |second| spec.eadd(second, 0, OTHER, &page));
    let parent = while_evicting(&mut machine(), |second| spec.eadd(second, OTHER, 12, &page));
    let removed = while_evicting(&mut machine(), |second| second.encls(leaf::EREMOVE, 0, at, 0));
    let read = while_evicting(&mut machine(), |second| second.encls(leaf::EDBGRD, 0, at, 0));
    let written = while_evicting(&mut machine(), |second| second.encls(leaf::EDBGWR, 0, at, 0));
    let extended = while_evicting(&mut machine(), |second| {
        second.encls(leaf::EEXTEND, Machine::window(0), at, 0)
    });

    assert_eq!(refused(created), Err(GP), "ECREATE, not #PF: VALID");
    assert_eq!(refused(added), Err(GP), "EADD, not #PF: VALID");
    assert_eq!(refused(parent), Err(GP), "EADD, SECS");
    assert_eq!(refused(removed), Err(GP), "EREMOVE");
    assert_eq!(refused(read), Err(GP), "EDBGRD, not #PF: PT_SECS");
    assert_eq!(refused(written), Err(GP), "EDBGWR, not #PF: PT_SECS");
    assert_eq!(refused(extended), Err(GP), "EEXTEND, not #PF: PT_SECS");
}

#[test]
fn einit_of_an_secs_that_is_being_evicted_faults_after_the_signature() {
    let mut spec = Spec::simple();
    spec.pages.clear();
    let run = |bad_signature: bool| {
        let mut sigstruct = spec.sigstruct(Signer::a());
        sigstruct.signature[0] ^= u8::from(bad_signature);
        while_evicting(&mut machine(), |second| {
            spec.einit(second, OTHER, &sigstruct, &EinitToken::none())
        })
    };

    assert_eq!(run(true), Ok(SgxStatus::InvalidSignature));
    assert_eq!(run(false), Err(GP));
}

#[test]
fn einit_of_an_unused_page_in_use_faults_before_its_type_is_looked_at() {
    let mut machine = Machine::new(8);
    let sigstruct = Spec::simple().sigstruct(Signer::a());
    let platform = machine.platform.clone();

    let unused = Spec::simple().einit(&mut machine, 1, &sigstruct, &EinitToken::none());
    let other = occupy(&platform, 1);
    let in_use = Spec::simple().einit(&mut machine, 1, &sigstruct, &EinitToken::none());
    drop(other);

    assert_eq!(unused, Err(epcm_fault(Machine::window(1), W)));
    assert_eq!(in_use, Err(GP));
}

#[test]
fn a_valid_target_faults_before_an_secs_in_use() {
    let spec = Spec::simple();
    let page = Page::reg(0x8000, RW, [1; 4096]);

    let added = while_evicting(&mut machine(), |second| spec.eadd(second, OTHER, 3, &page));

    assert_eq!(refused(added), Err(epcm_fault(Machine::window(3), W)));
}

#[test]
fn a_version_array_that_eviction_shares_is_read_but_not_removed() {
    let at = Machine::window(VA);

    let read = while_evicting(&mut machine(), |second| second.encls(leaf::EDBGRD, 0, at, 0));
    let removed = while_evicting(&mut machine(), |second| second.encls(leaf::EREMOVE, 0, at, 0));

    assert_eq!(read.map(|outcome| outcome.rbx), Ok(Some(0)));
    assert_eq!(refused(removed), Err(GP));
}

#[test]
fn an_secs_to_which_a_page_is_added_is_in_use_before_it_has_children() {
    let at = Machine::window(0);

    let removed = while_adding(&mut machine(), |second| second.encls(leaf::EREMOVE, 0, at, 0));

    assert_eq!(refused(removed), Err(GP), "not SGX_CHILD_PRESENT");
}

#[test]
fn two_pages_may_be_added_to_one_enclave_until_they_are_measured() {
    let spec = Spec::simple();
    let page = Page::reg(0x9000, RW, [1; 4096]);

    let same = while_adding(&mut machine(), |second| spec.eadd(second, 0, 12, &page));
    let another = while_adding(&mut machine(), |second| spec.eadd(second, 0, 13, &page));

    assert_eq!(refused(same), Err(GP), "the target is exclusive");
    assert_eq!(refused(another), Ok(()), "the SECS is shared");
}

#[test]
fn an_initialization_meanwhile_ends_the_adding_of_a_page() {
    let mut machine = machine();
    let spec = Spec::simple();
    let sigstruct = spec.sigstruct(Signer::a());
    machine.operand(SECINFO, &SecInfo::new(RW, PageType::Reg));
    let pageinfo = PageInfo {
        linaddr: (spec.base + 0x8000).into(),
        srcpge: SOURCE.into(),
        secinfo: SECINFO.into(),
        secs: Machine::window(0).into(),
    };
    machine.operand(PAGEINFO, &pageinfo);
    let mut second = Machine::on(machine.platform.clone());
    second.memory.le_hash = Signer::a().mrsigner();

    let (added, status) = meanwhile(&mut machine, SOURCE, eadd, || {
        spec.einit(&mut second, 0, &sigstruct, &EinitToken::none())
    });

    assert_eq!(status, Ok(SgxStatus::Success));
    assert_eq!(refused(added), Err(GP));
    assert!(!machine.platform.epcm(EpcIndex(12)).valid());
}

/// Runs `attempt` until it returns `awaited`, while another processor measures the enclave of
/// page 0 without pause. What else it returned comes back.
fn while_measuring<T: PartialEq>(
    machine: &mut Machine,
    awaited: &T,
    mut attempt: impl FnMut(&mut Machine) -> T,
) -> Vec<T> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let done = AtomicBool::new(false);
    let mut second = Machine::on(machine.platform.clone());
    let mut others = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let chunk = Machine::window(3);
                let _ = second.encls(leaf::EEXTEND, Machine::window(0), chunk, 0);
            }
        });
        while Instant::now() < deadline {
            let outcome = attempt(machine);
            if outcome == *awaited {
                break;
            }
            if !others.contains(&outcome) {
                others.push(outcome);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(Instant::now() < deadline, "no conflict was seen");
    others
}

#[test]
fn eextend_and_another_measurement_conflict() {
    let chunk = Machine::window(3);

    let others = while_measuring(&mut machine(), &Err(GP), |machine| {
        machine.encls(leaf::EEXTEND, Machine::window(0), chunk, 0).map(drop)
    });

    assert!(others.iter().all(|outcome| *outcome == Ok(())), "{others:?}");
}

#[test]
fn eadd_and_another_measurement_conflict() {
    let spec = Spec::simple();
    let page = Page::reg(0x8000, RW, [1; 4096]);

    let others = while_measuring(&mut machine(), &Err(GP), |machine| {
        let added = spec.eadd(machine, 0, 12, &page).map(drop);
        machine.eremove(12);
        added
    });

    assert!(others.iter().all(|outcome| *outcome == Ok(())), "{others:?}");
}

#[test]
fn einit_and_another_measurement_conflict_before_the_measurement_counts() {
    let spec = Spec::simple();
    let sigstruct = Spec { pages: Vec::new(), ..spec.clone() }.sigstruct(Signer::a());

    let others = while_measuring(&mut machine(), &Err(GP), |machine| {
        spec.einit(machine, 0, &sigstruct, &EinitToken::none())
    });

    let wrong = Ok(SgxStatus::InvalidMeasurement);
    assert!(others.iter().all(|outcome| *outcome == wrong), "{others:?}");
}

#[test]
fn einit_names_a_family_without_kss_before_it_meets_another_measurement() {
    let mut machine = machine();
    let mut sigstruct = Spec::simple().sigstruct(Signer::a());
    sigstruct.isvfamilyid[0] = 1;
    Signer::a().resign(&mut sigstruct);
    let mut tries = 0;

    let others = while_measuring(&mut machine, &500, |machine| {
        let outcome = Spec::simple().einit(machine, 0, &sigstruct, &EinitToken::none());
        assert_eq!(outcome, Ok(SgxStatus::InvalidSigStruct));
        tries += 1;
        tries
    });

    assert_eq!(others.len(), 499);
}

#[test]
fn a_chunk_in_use_faults_before_it_is_found_unused() {
    let mut machine = machine();
    let platform = machine.platform.clone();
    let at = Machine::window(25);
    let mut extend = || refused(machine.encls(leaf::EEXTEND, Machine::window(0), at, 0));

    let unused = extend();
    let other = occupy(&platform, 25);
    let in_use = extend();
    drop(other);

    assert_eq!(unused, Err(epcm_fault(at, PageFaultCode::empty())));
    assert_eq!(in_use, Err(GP));
}

#[test]
fn a_target_in_use_under_epc_virtualization_is_the_hypervisors() {
    const FREE: u32 = 30;
    let (spec, mut machine) = (Spec::simple(), machine());
    machine.memory.epc_virtualization = true;
    let platform = machine.platform.clone();
    let _held = [occupy(&platform, 1), occupy(&platform, FREE)];
    let exit = |conflict| Err(Stop::Conflict(conflict));
    let exception = || exit(Conflict::PageException { la: La(Machine::window(FREE)) });

    let created = spec.ecreate(&mut machine, FREE);
    let added = spec.eadd(&mut machine, OTHER, FREE, &Page::reg(0x1000, RW, [0; 4096]));
    let pageinfo = PageInfo {
        linaddr: (BASE + 0x1000).into(),
        secs: Machine::window(0).into(),
        ..PageInfo::default()
    };
    machine.operand(PAGEINFO, &pageinfo);
    let augmented = machine.encls(leaf::EAUG, PAGEINFO, Machine::window(FREE), 0);
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Trim));
    let trimmed = machine.encls(leaf::EMODT, SECINFO, Machine::window(1), 0);

    assert_eq!(created.map(drop), exception());
    assert_eq!(added.map(drop), exception());
    assert_eq!(augmented.map(drop), exception());
    let error = Conflict::PageError { la: La(Machine::window(1)) };
    assert_eq!(trimmed.map(drop), exit(error));
}
