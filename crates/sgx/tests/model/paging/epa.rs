//! EPA.

use cloister_sgx::encls::leaf;
use cloister_sgx::{Conflict, EpcIndex, EpcmFlags, PageType, SgxStatus, Stop};
use cloister_x86::La;

use super::bench::Outcome::{Gp, Pf};
use super::bench::{
    Bench, Condition, FREE, Operand, Other, PAGES, RAM, condition, wrong_alone, wrong_pairs,
};
use crate::machine::Machine;

pub(super) fn good() -> Bench {
    Bench { rbx: 3, rcx: Machine::window(FREE), ..Bench::new(leaf::EPA) }
}

fn conditions() -> Vec<Condition> {
    vec![
        condition("RBX is not PT_VA", Gp, |bench| bench.rbx = 2, &[]),
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 8, &[]),
        condition(
            "the page is not in the EPC",
            Pf(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &["the page is in use", "the page is valid"],
        ),
        condition(
            "the page is in use",
            Gp,
            |bench| bench.other = Some(Other::Uses(Operand::Rcx)),
            &[],
        ),
        condition(
            "the page is valid",
            Pf(Operand::Rcx),
            |bench| bench.rcx = Machine::window(PAGES[0]),
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
    assert_eq!(pairs, 5);
}

#[test]
fn the_page_becomes_an_empty_version_array() {
    let mut bench = good();
    bench.machine.platform.page(EpcIndex(FREE)).store(0, 99);

    let outcome = bench.outcome().expect("EPA completes");

    let entry = bench.machine.platform.epcm(EpcIndex(FREE));
    assert_eq!(outcome.status, None, "neither RAX nor flags change");
    assert_eq!((entry.page_type, entry.flags), (PageType::Va, EpcmFlags::VALID));
    assert_eq!(entry.address, 0);
    assert_eq!(bench.machine.platform.page(EpcIndex(FREE)).to_bytes(), [0; 4096]);
    assert_eq!(bench.machine.eremove(FREE), SgxStatus::Success);
}

#[test]
fn only_the_low_half_of_rbx_counts_outside_64_bit_mode() {
    let mut machine = Machine::new(8);
    machine.memory.mode64 = false;
    let mapping = machine.memory.mappings[&Machine::window(2)];
    machine.memory.mappings.insert(0x5000, mapping);

    let made = machine.encls(leaf::EPA, 0xffff_ffff_0000_0003, 0x5000, 0);

    assert!(made.is_ok());
}

#[test]
fn a_conflict_under_epc_virtualization_is_the_hypervisors() {
    let mut bench = good();
    bench.machine.memory.epc_virtualization = true;
    bench.other = Some(Other::Uses(Operand::Rcx));

    assert_eq!(bench.run(), Err(Stop::Conflict(Conflict::PageException { la: La(bench.rcx) })));
}
