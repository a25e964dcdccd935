//! EREMOVE.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{EpcIndex, PageType, SgxStatus};
use cloister_x86::{Gpa, Gpr};
use zerocopy::IntoBytes as _;

use super::{W, occupy};
use crate::conditions::{Condition, Outcome, each_alone, in_pairs, reported};
use crate::enclave::{BASE, DATA, PAGEINFO, SECINFO, SOURCE, Spec, TCS, started};
use crate::machine::{GP, Machine, Mapping, epcm_fault};

/// The EPC pages of a [`Case`]: the started enclave's SECS, two of its pages, one that is being
/// trimmed, a version array, a page that another leaf has for itself and an unused one.
const SECS: u32 = 0;
const DATA_PAGE: u32 = 4;
const TRIMMED: u32 = 8;
const VA: u32 = 21;
const HELD: u32 = 22;
const UNUSED: u32 = 23;
/// Where the last page of [`Spec::simple`] lies.
const LAST: u64 = BASE + 0x7000;

struct Case {
    rcx: u64,
    /// A thread is inside the enclave.
    inside: bool,
}

type Check = Condition<Case>;

fn good() -> Case {
    Case { rcx: Machine::window(DATA_PAGE), inside: false }
}

/// Makes the last page one that the enclave gives up, and has it accept that if `accepted`.
fn trim(machine: &mut Machine, accepted: bool) {
    machine.operand(SECINFO, &SecInfo::new(SecInfoFlags::empty(), PageType::Trim));
    let status = machine.status(leaf::EMODT, SECINFO, Machine::window(TRIMMED), 0);
    assert_eq!(status, SgxStatus::Success);
    if accepted {
        assert_eq!(machine.status(leaf::ETRACK, 0, Machine::window(SECS), 0), SgxStatus::Success);
        machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
        let secinfo = SecInfo::new(SecInfoFlags::MODIFIED, PageType::Trim);
        machine.platform.page(EpcIndex(DATA_PAGE)).write(0x40, secinfo.as_bytes());
        machine.enclu(user::EACCEPT, DATA + 0x40, LAST, 0).expect("EACCEPT completes");
        assert_eq!(machine.cpu.gpr[Gpr::Rax], 0);
        machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    }
}

fn run(case: Case) -> Outcome {
    let mut machine = started();
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    if case.inside {
        machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    }
    let platform = machine.platform.clone();
    let other = occupy(&platform, HELD);
    let outcome = machine.encls(leaf::EREMOVE, 0, case.rcx, 0);
    drop(other);
    reported(outcome)
}

fn conditions() -> Vec<Check> {
    vec![
        Check::new(1, "alignment", |case| case.rcx += 2048, |_| Err(GP)),
        Check::new(1, "not canonical", |case| case.rcx = 1 << 47, |_| Err(GP)).on("page"),
        Check::new(
            2,
            "not in the EPC",
            |case| case.rcx = SOURCE,
            |case| Err(epcm_fault(case.rcx, W)),
        )
        .on("page"),
        Check::new(3, "in use", |case| case.rcx = Machine::window(HELD), |_| Err(GP)).on("page"),
        Check::new(
            4,
            "unused",
            |case| case.rcx = Machine::window(UNUSED),
            |_| Ok(Some(SgxStatus::Success)),
        )
        .on("page"),
        Check::new(
            6,
            "PT_VA",
            |case| case.rcx = Machine::window(VA),
            |_| Ok(Some(SgxStatus::Success)),
        )
        .on("page"),
        Check::new(
            7,
            "SECS with children",
            |case| case.rcx = Machine::window(SECS),
            |_| Ok(Some(SgxStatus::ChildPresent)),
        )
        .on("page"),
        Check::new(
            9,
            "a thread inside",
            |case| case.inside = true,
            |_| Ok(Some(SgxStatus::EnclaveAct)),
        ),
    ]
}

#[test]
fn a_page_of_an_idle_enclave_is_removed() {
    assert_eq!(run(good()), Ok(Some(SgxStatus::Success)));
}

#[test]
fn each_condition_has_its_outcome() {
    assert_eq!(each_alone(&conditions(), good, run), [""; 0]);
}

#[test]
fn of_two_conditions_the_first_decides() {
    let pairs = in_pairs(&conditions(), good, run);

    assert_eq!(pairs.wrong, [""; 0]);
    assert!(pairs.compared >= 11, "{}", pairs.compared);
}

#[test]
fn children_go_first_and_the_secs_last() {
    let mut machine = started();

    let early = machine.eremove(0);
    let children: Vec<_> = (1..=8).map(|page| machine.eremove(page)).collect();
    let late = machine.eremove(0);
    let again = machine.eremove(0);

    assert_eq!(early, SgxStatus::ChildPresent);
    assert_eq!(children, [SgxStatus::Success; 8]);
    assert_eq!(late, SgxStatus::Success);
    assert_eq!(again, SgxStatus::Success);
    assert!(!machine.platform.epcm(EpcIndex(0)).valid());
}

#[test]
fn an_accepted_trim_is_removed_while_a_thread_is_inside() {
    let mut machine = started();
    trim(&mut machine, true);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");

    let removed = machine.eremove(TRIMMED);

    assert_eq!(removed, SgxStatus::Success);
    assert!(!machine.platform.epcm(EpcIndex(TRIMMED)).valid(), "the page is unused");
}

#[test]
fn a_trim_that_was_not_accepted_needs_an_idle_enclave() {
    let mut machine = started();
    trim(&mut machine, false);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");

    let active = machine.eremove(TRIMMED);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    let idle = machine.eremove(TRIMMED);

    assert_eq!(active, SgxStatus::EnclaveAct);
    assert_eq!(idle, SgxStatus::Success);
}

#[test]
fn every_type_of_child_is_removed_from_an_idle_enclave() {
    let mut machine = started();
    let pageinfo = PageInfo {
        linaddr: (BASE + 0x8000).into(),
        secs: Machine::window(SECS).into(),
        ..PageInfo::default()
    };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::EAUG, PAGEINFO, Machine::window(UNUSED), 0).expect("EAUG completes");

    let removed = [1, DATA_PAGE, UNUSED].map(|page| machine.eremove(page));

    assert_eq!(removed, [SgxStatus::Success; 3], "PT_TCS, PT_REG, a pending page");
}

#[test]
fn an_error_sets_zf_and_rax_and_success_clears_them() {
    let mut machine = Machine::new(32);
    Spec::simple().load(&mut machine, SECS).expect("the enclave can be built");
    let window = Machine::window;

    let error = machine.encls_registers(leaf::EREMOVE, 0, window(SECS), 0).expect("it completes");
    let success = machine.encls_registers(leaf::EREMOVE, 0, window(1), 0).expect("it completes");

    assert_eq!((error.rax, error.rflags), (13, 0x42));
    assert_eq!((success.rax, success.rflags), (0, 0x2));
}

#[test]
fn a_page_without_backing_is_unused() {
    let mut machine = Machine::new(8);
    let unbacked = Mapping::Unbacked { gpa: Gpa(0x1_0000_0000) };
    machine.memory.mappings.insert(0x9000, unbacked);

    let removed = machine.encls_registers(leaf::EREMOVE, 0, 0x9000, 0).expect("it completes");

    assert_eq!((removed.rax, removed.rflags), (0, 0x2));
}
