//! ELDB, ELDU, ELDBC and ELDUC.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{Conflict, EpcIndex, EpcmFlags, PageType, SgxStatus, Stop};
use cloister_x86::La;

use super::bench::Outcome::{self, Gp, Pf, Status, Unreadable};
use super::bench::{
    Bench, Condition, FREE, LONELY, Operand, Other, PAGES, RAM, SECS, condition, wrong_alone,
    wrong_pairs,
};
use super::store::{EVICTED, PCMD, VA, evict_from, ewb, load, slot};
use crate::enclave::{BASE, PAGEINFO};
use crate::machine::{GP, Machine, epcm_fault};

const LEAVES: [u32; 4] = [leaf::ELDB, leaf::ELDU, leaf::ELDBC, leaf::ELDUC];

/// The first page is evicted, the others are gone, so that the SECS has no page in the EPC.
pub(super) fn good(number: u32) -> Bench {
    let mut bench = Bench::new(number);
    evict_from(&mut bench.machine, SECS, PAGES[0], 0);
    for page in &PAGES[1..] {
        bench.machine.eremove(*page);
    }
    bench.rcx = Machine::window(FREE);
    bench.pageinfo.linaddr = (BASE + 0x1000).into();
    bench.pageinfo.secs = Machine::window(SECS).into();
    bench
}

/// The conditions, for a leaf to which a conflict means `conflict`.
fn conditions(conflict: Outcome) -> Vec<Condition> {
    vec![
        condition("PAGEINFO is not aligned", Gp, |bench| bench.rbx |= 16, &[]),
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 16, &[]),
        condition(
            "the page is not in the EPC",
            Pf(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &["the page is in use", "the page is valid"],
        ),
        condition("the slot is not aligned", Gp, |bench| bench.rdx |= 4, &[]),
        condition(
            "the slot is not in the EPC",
            Pf(Operand::Rdx),
            |bench| bench.rdx = RAM,
            &[
                "the version array is in use",
                "the version array is not valid",
                "the slot's page is not a version array",
            ],
        ),
        condition(
            "PAGEINFO cannot be read",
            Unreadable(PAGEINFO),
            |bench| bench.forbidden.push((PAGEINFO, true)),
            &[
                "PCMD is not aligned",
                "SRCPGE is not aligned",
                "PCMD cannot be read",
                "the SECS is not aligned",
                "the SECS is not in the EPC",
                "the SECS is in use",
                "the SECS is none",
                "the SECS is not valid",
                "an SECS is named for a page without one",
                "the page cannot be read",
            ],
        ),
        condition(
            "PCMD is not aligned",
            Gp,
            |bench| bench.pageinfo.secinfo = (PCMD + 64).into(),
            &[],
        ),
        condition(
            "SRCPGE is not aligned",
            Gp,
            |bench| bench.pageinfo.srcpge = (EVICTED + 2048).into(),
            &[],
        ),
        condition(
            "the page is in use",
            conflict,
            |bench| bench.other = Some(Other::Uses(Operand::Rcx)),
            &[],
        ),
        condition(
            "the version array is in use",
            conflict,
            |bench| bench.other = Some(Other::Uses(Operand::Rdx)),
            &[],
        ),
        condition(
            "the page is valid",
            Pf(Operand::Rcx),
            |bench| bench.rcx = Machine::window(LONELY),
            &[],
        ),
        condition(
            "the version array is not valid",
            Pf(Operand::Rdx),
            |bench| bench.rdx = Machine::window(FREE + 1),
            &["the slot's page is not a version array"],
        ),
        condition(
            "the slot's page is not a version array",
            Pf(Operand::Rdx),
            |bench| bench.rdx = Machine::window(LONELY),
            // The same page.
            &["the page is valid"],
        ),
        condition(
            "PCMD cannot be read",
            Unreadable(PCMD),
            |bench| bench.forbidden.push((PCMD, true)),
            &["an SECS is named for a page without one"],
        ),
        condition(
            "the SECS is not aligned",
            Gp,
            |bench| bench.pageinfo.secs = (bench.pageinfo.secs.get() | 8).into(),
            &["an SECS is named for a page without one"],
        ),
        condition(
            "the SECS is not in the EPC",
            Pf(Operand::Secs),
            |bench| bench.pageinfo.secs = RAM.into(),
            &[
                "the SECS is in use",
                "the SECS is none",
                "the SECS is not valid",
                "an SECS is named for a page without one",
            ],
        ),
        condition(
            "the SECS is in use",
            conflict,
            |bench| bench.other = Some(Other::Uses(Operand::Secs)),
            &["an SECS is named for a page without one"],
        ),
        condition(
            "the SECS is not valid",
            Pf(Operand::Secs),
            |bench| bench.pageinfo.secs = Machine::window(FREE + 1).into(),
            &["the SECS is none", "an SECS is named for a page without one"],
        ),
        condition(
            "the SECS is none",
            Pf(Operand::Secs),
            |bench| bench.pageinfo.secs = Machine::window(VA).into(),
            &["an SECS is named for a page without one"],
        ),
        condition(
            "an SECS is named for a page without one",
            Gp,
            |bench| {
                let secinfo = SecInfo::new(SecInfoFlags::empty(), PageType::Va);
                bench.machine.operand(PCMD, &secinfo);
            },
            &[],
        ),
        condition(
            "the page cannot be read",
            Unreadable(EVICTED),
            |bench| bench.forbidden.push((EVICTED, true)),
            &[],
        ),
        condition(
            "the MAC is another one",
            Status(SgxStatus::MacCompareFail),
            |bench| {
                let byte = bench.machine.memory.get(PCMD + 112, 1)[0];
                bench.machine.memory.put(PCMD + 112, &[byte ^ 1]);
            },
            &[],
        ),
    ]
}

#[test]
fn each_condition_of_eldb_and_eldu_has_its_outcome() {
    assert_eq!(wrong_alone(|| good(leaf::ELDB), &conditions(Gp)), [""; 0]);
    assert_eq!(wrong_alone(|| good(leaf::ELDU), &conditions(Gp)), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_eldb_and_eldu_wins() {
    for number in [leaf::ELDB, leaf::ELDU] {
        let (pairs, wrong) = wrong_pairs(|| good(number), &conditions(Gp));

        assert_eq!(wrong, [""; 0]);
        assert_eq!(pairs, 157);
    }
}

#[test]
fn each_condition_of_eldbc_and_elduc_has_its_outcome() {
    let conflict = Status(SgxStatus::EpcPageConflict);
    assert_eq!(wrong_alone(|| good(leaf::ELDBC), &conditions(conflict)), [""; 0]);
    assert_eq!(wrong_alone(|| good(leaf::ELDUC), &conditions(conflict)), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_eldbc_and_elduc_wins() {
    for number in [leaf::ELDBC, leaf::ELDUC] {
        let conflict = Status(SgxStatus::EpcPageConflict);
        let (pairs, wrong) = wrong_pairs(|| good(number), &conditions(conflict));

        assert_eq!(wrong, [""; 0]);
        assert_eq!(pairs, 177);
    }
}

#[test]
fn the_flags_report_errors_in_zf() {
    let conditions = conditions(Status(SgxStatus::EpcPageConflict));
    let named = |name: &str| {
        let mut bench = good(leaf::ELDUC);
        let condition = conditions.iter().find(|condition| condition.name == name);
        (condition.expect("a condition").arrange)(&mut bench);
        bench.registers()
    };

    assert_eq!(LEAVES.map(|number| good(number).registers()), [(0, 2); 4]);
    assert_eq!(named("the page is in use"), (7, 0x42));
    assert_eq!(named("the version array is in use"), (7, 0x42));
    assert_eq!(named("the SECS is in use"), (7, 0x42));
    assert_eq!(named("the MAC is another one"), (9, 0x42));
}

#[test]
fn eldb_and_eldbc_load_blocked() {
    let flags = LEAVES.map(|number| {
        let mut bench = good(number);
        let status = bench.run();
        assert_eq!(status, Ok(SgxStatus::Success));
        bench.machine.platform.epcm(EpcIndex(FREE)).flags
    });

    let unblocked = EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::W;
    let blocked = unblocked | EpcmFlags::BLOCKED;
    assert_eq!(flags, [blocked, unblocked, blocked, unblocked]);
}

#[test]
fn pages_without_a_parent_are_never_loaded_blocked() {
    for number in LEAVES {
        let mut machine = good(number).machine;
        let evicted = ewb(&mut machine, LONELY, 1);
        let secs = load(&mut machine, number, LONELY, 1, 0, 0);
        machine.encls(leaf::EPA, 3, Machine::window(12), 0).expect("EPA completes");
        ewb(&mut machine, 12, 2).expect("EWB completes");
        let array = load(&mut machine, number, 12, 2, 0, 0);

        assert_eq!(evicted, Ok(SgxStatus::Success));
        assert_eq!((secs, array), (Ok(SgxStatus::Success), Ok(SgxStatus::Success)));
        for page in [LONELY, 12] {
            assert_eq!(machine.platform.epcm(EpcIndex(page)).flags, EpcmFlags::VALID);
        }
    }
}

#[test]
fn a_page_loaded_blocked_counts_as_tracked() {
    let mut bench = good(leaf::ELDB);
    bench.run().expect("ELDB completes");

    let evicted_again = ewb(&mut bench.machine, FREE, 1);

    assert_eq!(evicted_again, Ok(SgxStatus::Success), "nobody can have a translation to it");
}

#[test]
fn an_operand_named_twice_is_judged_by_its_entry() {
    let array = Bench { rcx: Machine::window(VA), ..good(leaf::ELDU) }.run();
    let unused = Bench { rdx: Machine::window(FREE), ..good(leaf::ELDU) }.run();
    let mut own_secs = good(leaf::ELDU);
    own_secs.pageinfo.secs = own_secs.rcx.into();

    let write = cloister_x86::PageFaultCode::WRITE;
    assert_eq!(array, Err(epcm_fault(Machine::window(VA), write)));
    assert_eq!(unused, Err(epcm_fault(Machine::window(FREE), write)));
    assert_eq!(own_secs.run(), Err(epcm_fault(Machine::window(FREE), write)));
}

#[test]
fn types_of_shadow_stacks_have_no_parent_without_cet() {
    for page_type in [PageType::SsFirst, PageType::SsRest] {
        let with_secs = |secs: u64| {
            let mut bench = good(leaf::ELDU);
            bench.machine.operand(PCMD, &SecInfo::new(SecInfoFlags::empty(), page_type));
            bench.pageinfo.secs = secs.into();
            bench.run()
        };

        assert_eq!(with_secs(Machine::window(SECS)), Err(GP));
        assert_eq!(with_secs(0), Ok(SgxStatus::MacCompareFail));
    }
}

#[test]
fn a_conflict_of_the_page_under_epc_virtualization_is_the_hypervisors() {
    let run = |number: u32, operand: Operand| {
        let mut bench = good(number);
        bench.machine.memory.epc_virtualization = true;
        bench.other = Some(Other::Uses(operand));
        bench.run()
    };

    for number in LEAVES {
        let la = La(good(number).rcx);
        let conflict = if matches!(number, leaf::ELDB | leaf::ELDU) {
            Conflict::PageException { la }
        } else {
            Conflict::PageError { la }
        };
        assert_eq!(run(number, Operand::Rcx), Err(Stop::Conflict(conflict)));
    }
    for operand in [Operand::Rdx, Operand::Secs] {
        assert_eq!(run(leaf::ELDU, operand), Err(GP));
        assert_eq!(run(leaf::ELDUC, operand), Ok(SgxStatus::EpcPageConflict));
    }
}

#[test]
fn a_version_is_used_once() {
    let mut bench = good(leaf::ELDU);

    let first = bench.run();
    let version = bench.machine.platform.page(EpcIndex(VA)).load(0);
    bench.rcx = Machine::window(FREE + 1);
    let second = bench.run();

    assert_eq!(bench.rdx, slot(0));
    assert_eq!((first, version), (Ok(SgxStatus::Success), 0));
    assert_eq!(second, Ok(SgxStatus::MacCompareFail));
}

#[test]
fn eldbc_and_elduc_must_be_announced() {
    let mut machine = crate::enclave::started();

    for number in [leaf::ELDBC, leaf::ELDUC] {
        assert_eq!(machine.encls(number, PAGEINFO, Machine::window(20), slot(0)), Err(GP));
    }
}
