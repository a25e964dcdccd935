//! ETRACK and ETRACKC.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{Conflict, SgxStatus, Stop};

use super::bench::Outcome::{Gp, Pf, Status};
use super::bench::{
    Bench, Condition, FREE, LONELY, Operand, Other, RAM, SECS, condition, wrong_alone, wrong_pairs,
};
use super::store::{VA, ewb, with_va};
use crate::enclave::{Spec, TCS, TCS_2};
use crate::machine::{GP, Machine};

/// A started enclave, into which a processor can go.
fn started(number: u32) -> Bench {
    let mut machine = with_va();
    Spec::simple().ecreate(&mut machine, LONELY).expect("ECREATE completes");
    Bench::on(machine, number)
}

pub(super) fn etrack() -> Bench {
    Bench { rcx: Machine::window(SECS), ..started(leaf::ETRACK) }
}

pub(super) fn etrackc() -> Bench {
    Bench { rcx: Machine::window(4), ..started(leaf::ETRACKC) }
}

/// A processor goes into the enclave, and a tracking cycle begins that waits for it.
fn begin_a_cycle(bench: &mut Bench) {
    let mut thread = Machine::on(bench.machine.platform.clone());
    Spec::simple().map(&mut thread, SECS);
    // What another processor is to evict must have been tracked before.
    bench.machine.status(leaf::EBLOCK, 0, Machine::window(6), 0);
    bench.machine.status(leaf::ETRACK, 0, Machine::window(SECS), 0);
    thread.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    bench.machine.status(leaf::ETRACK, 0, Machine::window(SECS), 0);
    bench.threads.push(thread);
}

fn of_etrack() -> Vec<Condition> {
    vec![
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 8, &[]),
        condition(
            "the page is not in the EPC",
            Pf(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &[
                "the page is in use",
                "the facility is in use",
                "the page is not valid",
                "the page is not a SECS",
                "the previous cycle is not finished",
            ],
        ),
        condition(
            "the page is in use",
            Gp,
            |bench| {
                if bench.rcx == Machine::window(SECS) {
                    bench.rcx = Machine::window(LONELY);
                }
                bench.other = Some(Other::Uses(Operand::Rcx));
            },
            // Nothing holds an SECS with pages for long.
            &["the previous cycle is not finished"],
        ),
        condition(
            "the facility is in use",
            Gp,
            |bench| bench.other = Some(Other::Evicts(6)),
            // The facility is the SECS's.
            &["the page is not valid", "the page is not a SECS"],
        ),
        condition(
            "the page is not valid",
            Pf(Operand::Rcx),
            |bench| bench.rcx = Machine::window(FREE),
            &["the page is not a SECS", "the previous cycle is not finished"],
        ),
        condition(
            "the page is not a SECS",
            Pf(Operand::Rcx),
            |bench| bench.rcx = Machine::window(4),
            &["the previous cycle is not finished"],
        ),
        condition(
            "the previous cycle is not finished",
            Status(SgxStatus::PrevTrkIncmpl),
            begin_a_cycle,
            &[],
        ),
    ]
}

fn of_etrackc() -> Vec<Condition> {
    vec![
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 8, &[]),
        condition(
            "the page is not in the EPC",
            Pf(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &[
                "the page is in use",
                "the page is not valid",
                "the page needs no tracking",
                "the facility is in use",
                "the previous cycle is not finished",
            ],
        ),
        condition(
            "the page is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| {
                if bench.rcx == Machine::window(4) {
                    bench.rcx = Machine::window(6);
                }
                bench.other = Some(Other::Uses(Operand::Rcx));
            },
            &[],
        ),
        condition(
            "the page is not valid",
            Status(SgxStatus::PgInvld),
            |bench| bench.rcx = Machine::window(FREE),
            // Such a page has no SECS.
            &[
                "the page needs no tracking",
                "the facility is in use",
                "the previous cycle is not finished",
            ],
        ),
        condition(
            "the page needs no tracking",
            Status(SgxStatus::TrackNotRequired),
            |bench| bench.rcx = Machine::window(VA),
            // Such a page has no SECS.
            &["the facility is in use", "the previous cycle is not finished"],
        ),
        condition(
            "the facility is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| bench.other = Some(Other::Evicts(6)),
            &[],
        ),
        condition(
            "the previous cycle is not finished",
            Status(SgxStatus::PrevTrkIncmpl),
            begin_a_cycle,
            &[],
        ),
    ]
}

#[test]
fn each_condition_of_etrack_has_its_outcome() {
    assert_eq!(wrong_alone(etrack, &of_etrack()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_etrack_wins() {
    let (pairs, wrong) = wrong_pairs(etrack, &of_etrack());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 7);
}

#[test]
fn each_condition_of_etrackc_has_its_outcome() {
    assert_eq!(wrong_alone(etrackc, &of_etrackc()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_etrackc_wins() {
    let (pairs, wrong) = wrong_pairs(etrackc, &of_etrackc());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 10);
}

#[test]
fn the_flags_tell_errors_from_information() {
    let run = |page: u32| Bench { rcx: Machine::window(page), ..etrackc() }.registers();
    let mut waiting = etrack();
    begin_a_cycle(&mut waiting);
    let mut waiting_c = etrackc();
    begin_a_cycle(&mut waiting_c);
    let mut busy = Bench { other: Some(Other::Evicts(6)), ..etrackc() };

    assert_eq!(etrack().registers(), (0, 2));
    assert_eq!(run(4), (0, 2));
    assert_eq!(run(FREE), (6, 0x42), "SGX_PG_INVLD with ZF");
    assert_eq!(busy.registers(), (7, 0x42), "SGX_EPC_PAGE_CONFLICT with ZF");
    assert_eq!(waiting.registers(), (17, 0x42), "SGX_PREV_TRK_INCMPL with ZF");
    assert_eq!(waiting_c.registers(), (17, 0x42), "SGX_PREV_TRK_INCMPL with ZF");
    assert_eq!(run(VA), (27, 3), "SGX_TRACK_NOT_REQUIRED with CF");
}

#[test]
fn etrackc_begins_the_cycle_of_the_secs_that_it_names_or_whose_page_it_names() {
    for named in [SECS, 1, 4] {
        let mut bench = Bench { rcx: Machine::window(named), ..etrackc() };
        bench.machine.status(leaf::EBLOCK, 0, Machine::window(6), 0);
        let before = ewb(&mut bench.machine, 6, 0);

        let tracked = bench.run();
        let after = ewb(&mut bench.machine, 6, 0);

        assert_eq!(before, Ok(SgxStatus::NotTracked));
        assert_eq!(tracked, Ok(SgxStatus::Success), "named by page {named}");
        assert_eq!(after, Ok(SgxStatus::Success));
    }
}

#[test]
fn a_cycle_ends_when_the_last_thread_of_its_epoch_has_left() {
    let mut machine = with_va();
    let mut second = Machine::on(machine.platform.clone());
    Spec::simple().map(&mut second, 0);
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);

    let first_cycle = machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    second.enclu(user::EENTER, TCS_2, 0x40_2000, 0).expect("EENTER completes");
    let early = ewb(&mut machine, 4, 0);
    let second_cycle = machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    let late = ewb(&mut machine, 4, 0);
    let third_cycle = machine.status(leaf::ETRACK, 0, Machine::window(0), 0);

    assert_eq!(first_cycle, SgxStatus::Success);
    assert_eq!(early, Ok(SgxStatus::NotTracked));
    assert_eq!(second_cycle, SgxStatus::PrevTrkIncmpl);
    assert_eq!(late, Ok(SgxStatus::Success), "the second thread entered after the block");
    assert_eq!(third_cycle, SgxStatus::Success);
}

#[test]
fn conflicts_under_epc_virtualization_are_the_hypervisors() {
    let virtualized = |mut bench: Bench, other: Option<Other>, cycle: bool| {
        if cycle {
            begin_a_cycle(&mut bench);
        }
        bench.machine.memory.epc_virtualization = true;
        bench.other = other;
        bench.run()
    };
    let uses = Some(Other::Uses(Operand::Rcx));
    let evicts = Some(Other::Evicts(6));

    let resource = Err(Stop::Conflict(Conflict::TrackingResource { context: 0 }));
    let reference = Err(Stop::Conflict(Conflict::TrackingReference { context: 0 }));
    assert_eq!(virtualized(etrack(), evicts, false), resource);
    assert_eq!(virtualized(etrackc(), evicts, false), resource);
    assert_eq!(virtualized(etrack(), None, true), reference);
    assert_eq!(virtualized(etrackc(), None, true), reference);
    let lonely = Bench { rcx: Machine::window(LONELY), ..etrack() };
    assert_eq!(virtualized(lonely, uses, false), Err(GP), "no resource of the hypervisor");
    let page = Bench { rcx: Machine::window(6), ..etrackc() };
    assert_eq!(virtualized(page, uses, false), Ok(SgxStatus::EpcPageConflict));
}

#[test]
fn etrackc_must_be_announced() {
    let mut machine = crate::enclave::started();

    assert_eq!(machine.encls(leaf::ETRACKC, 0, Machine::window(0), 0), Err(GP));
}
