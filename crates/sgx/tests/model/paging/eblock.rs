//! EBLOCK.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{
    Access, AccessOutcome, EpcIndex, EpcmFlags, PageType, SgxStatus, Stop, check_access,
};
use cloister_x86::{Exception, La, PageFaultCode};

use super::bench::Outcome::{Gp, Pf, Status};
use super::bench::{
    Bench, Condition, FREE, Operand, Other, PAGES, RAM, SECS, condition, wrong_alone, wrong_pairs,
};
use super::store::{VA, with_va};
use crate::enclave::{DATA, TCS};
use crate::machine::Machine;

pub(super) fn good() -> Bench {
    Bench { rcx: Machine::window(PAGES[0]), ..Bench::new(leaf::EBLOCK) }
}

const NO_PAGE: &[&str] = &[
    "the page is in use",
    "the page is not valid",
    "the page is an SECS",
    "the page is a version array",
    "the page is blocked already",
];

fn conditions() -> Vec<Condition> {
    vec![
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 0x800, &[]),
        condition("the page is not in the EPC", Pf(Operand::Rcx), |bench| bench.rcx = RAM, NO_PAGE),
        condition(
            "the page is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| bench.other = Some(Other::Uses(Operand::Rcx)),
            // Nothing holds an SECS with pages for long.
            &["the page is an SECS"],
        ),
        condition(
            "the page is not valid",
            Status(SgxStatus::PgInvld),
            |bench| bench.rcx = Machine::window(FREE),
            &["the page is an SECS", "the page is a version array", "the page is blocked already"],
        ),
        condition(
            "the page is an SECS",
            Status(SgxStatus::PgIsSecs),
            |bench| bench.rcx = Machine::window(SECS),
            &["the page is a version array", "the page is blocked already"],
        ),
        condition(
            "the page is a version array",
            Status(SgxStatus::NotBlockable),
            |bench| bench.rcx = Machine::window(VA),
            &["the page is blocked already"],
        ),
        condition(
            "the page is blocked already",
            Status(SgxStatus::BlkState),
            |bench| {
                bench.machine.status(leaf::EBLOCK, 0, Machine::window(PAGES[0]), 0);
            },
            &[],
        ),
    ]
}

#[test]
fn each_condition_has_its_outcome() {
    assert_eq!(wrong_alone(good, &conditions()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_wins() {
    let (pairs, wrong) = wrong_pairs(good, &conditions());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 9);
}

#[test]
fn the_flags_tell_errors_from_information() {
    let run = |page: u32| Bench { rcx: Machine::window(page), ..good() }.registers();
    let mut blocked = good();
    blocked.run().expect("EBLOCK completes");
    let mut busy = Bench { other: Some(Other::Uses(Operand::Rcx)), ..good() };

    assert_eq!(run(PAGES[0]), (0, 2));
    assert_eq!(blocked.registers(), (3, 3), "SGX_BLKSTATE with CF");
    assert_eq!(run(VA), (5, 3), "SGX_NOTBLOCKABLE with CF");
    assert_eq!(run(FREE), (6, 0x42), "SGX_PG_INVLD with ZF");
    assert_eq!(busy.registers(), (7, 0x42), "SGX_EPC_PAGE_CONFLICT with ZF");
    assert_eq!(run(SECS), (18, 3), "SGX_PG_IS_SECS with CF");
}

#[test]
fn a_tracking_facility_in_use_is_no_obstacle() {
    let mut bench = Bench { other: Some(Other::Evicts(PAGES[1])), ..good() };

    let status = bench.run();

    assert_eq!(status, Ok(SgxStatus::Success), "never SGX_ENTRYEPOCH_LOCKED");
}

#[test]
fn a_conflict_is_reported_even_under_epc_virtualization() {
    let mut bench = Bench { other: Some(Other::Uses(Operand::Rcx)), ..good() };
    bench.machine.memory.epc_virtualization = true;

    assert_eq!(bench.run(), Ok(SgxStatus::EpcPageConflict));
}

#[test]
fn every_type_of_page_with_an_secs_can_be_blocked() {
    let mut machine = with_va();
    let window = Machine::window;
    let trim = cloister_sgx::layout::SecInfo::new(
        cloister_sgx::layout::SecInfoFlags::empty(),
        PageType::Trim,
    );
    machine.operand(crate::enclave::SECINFO, &trim);
    machine.status(leaf::EMODT, crate::enclave::SECINFO, window(5), 0);

    let statuses: Vec<_> =
        [1, 4, 5].map(|page| machine.status(leaf::EBLOCK, 0, window(page), 0)).into();
    let entries: Vec<_> = [1, 4, 5].map(|page| machine.platform.epcm(EpcIndex(page))).into();

    assert_eq!(statuses, [SgxStatus::Success; 3]);
    let types: Vec<_> = entries.iter().map(|entry| entry.page_type).collect();
    assert_eq!(types, [PageType::Tcs, PageType::Reg, PageType::Trim]);
    assert!(entries.iter().all(|entry| entry.flags.contains(EpcmFlags::BLOCKED)));
}

#[test]
fn an_access_to_a_blocked_page_faults_with_the_sgx_bit() {
    let mut machine = with_va();
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    let check = |machine: &Machine, access| {
        check_access(&machine.platform, &machine.state, La(DATA), Some(EpcIndex(4)), access)
    };

    let before = check(&machine, Access::Write);
    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
    let read = check(&machine, Access::Read);
    let write = check(&machine, Access::Write);

    let code = PageFaultCode::PRESENT | PageFaultCode::USER | PageFaultCode::SGX;
    assert_eq!(before, AccessOutcome::Allowed);
    assert_eq!(read, AccessOutcome::Fault(Exception::pf(DATA, code)));
    assert_eq!(write, AccessOutcome::Fault(Exception::pf(DATA, code | PageFaultCode::WRITE)));
}

#[test]
fn nobody_enters_on_a_blocked_tcs() {
    let mut machine = with_va();
    machine.status(leaf::EBLOCK, 0, Machine::window(1), 0);

    let entered = machine.enclu(user::EENTER, TCS, 0x40_2000, 0);

    let code = PageFaultCode::PRESENT | PageFaultCode::USER | PageFaultCode::SGX;
    let Err(Stop::Fault(fault)) = entered else { panic!("{entered:?}") };
    assert_eq!((fault.address, fault.error_code & !2), (TCS, code.bits()));
}
