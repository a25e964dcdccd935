//! EDECVIRTCHILD, EINCVIRTCHILD and ESETCONTEXT, and what virtual children mean to EREMOVE.

use cloister_sgx::encls::leaf as system;
use cloister_sgx::enclv::leaf;
use cloister_sgx::layout::Secs;
use cloister_sgx::{Conflict, EpcIndex, SgxStatus, Stop};
use cloister_x86::La;

use super::bench::Outcome::{Gp, Pf, PfRead, Status, Unreadable};
use super::bench::{
    Bench, Condition, DATA, FREE, LONELY, Operand, Other, PAGES, RAM, SECS, condition, enclv_bench,
    wrong_alone, wrong_pairs,
};
use super::store::VA;
use crate::machine::{GP, Machine};

const VIRTCHILDCNT: usize = core::mem::offset_of!(Secs, virtchildcnt);
const ENCLAVECONTEXT: usize = core::mem::offset_of!(Secs, enclavecontext);

fn counting(number: u32) -> Bench {
    let bench = enclv_bench(number);
    bench.machine.platform.page(EpcIndex(SECS)).store(VIRTCHILDCNT, 1);
    Bench { rbx: Machine::window(PAGES[0]), rcx: Machine::window(SECS), ..bench }
}

pub(super) fn edec() -> Bench {
    counting(leaf::EDECVIRTCHILD)
}

pub(super) fn einc() -> Bench {
    counting(leaf::EINCVIRTCHILD)
}

pub(super) fn esetcontext() -> Bench {
    Bench { rcx: Machine::window(SECS), rdx: DATA, ..enclv_bench(leaf::ESETCONTEXT) }
}

const NO_PAGE: &[&str] = &[
    "the page is in use",
    "the page is not valid",
    "the page is a version array",
    "the page has another SECS",
    "the counter is zero",
];

/// What EDECVIRTCHILD and EINCVIRTCHILD have in common.
fn of_counting() -> Vec<Condition> {
    vec![
        condition("the page is not aligned", Gp, |bench| bench.rbx |= 8, &[]),
        condition("the page is not in the EPC", Pf(Operand::Rbx), |bench| bench.rbx = RAM, NO_PAGE),
        condition(
            "the SECS is not in the EPC",
            PfRead(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &["the page has another SECS", "the counter is zero"],
        ),
        condition(
            "the page is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| bench.other = Some(Other::Uses(Operand::Rbx)),
            &[],
        ),
        condition(
            "the page is not valid",
            Pf(Operand::Rbx),
            |bench| bench.rbx = Machine::window(FREE),
            // Such a page has no SECS.
            &["the page is a version array", "the page has another SECS", "the counter is zero"],
        ),
        condition(
            "the page is a version array",
            Pf(Operand::Rbx),
            |bench| bench.rbx = Machine::window(VA),
            // Such a page has no SECS.
            &["the page has another SECS", "the counter is zero"],
        ),
        condition(
            "the page has another SECS",
            Gp,
            |bench| bench.rcx = Machine::window(LONELY),
            &[],
        ),
    ]
}

fn of_edec() -> Vec<Condition> {
    let mut conditions = of_counting();
    conditions.push(condition(
        "the counter is zero",
        Status(SgxStatus::InvalidCounter),
        |bench| bench.machine.platform.page(EpcIndex(SECS)).store(VIRTCHILDCNT, 0),
        &[],
    ));
    conditions
}

fn of_esetcontext() -> Vec<Condition> {
    vec![
        condition("the SECS is not aligned", Gp, |bench| bench.rcx |= 8, &[]),
        condition(
            "the SECS is not in the EPC",
            PfRead(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &["the SECS is in use", "the page is not valid", "the page is not a SECS"],
        ),
        condition("the context is not aligned", Gp, |bench| bench.rdx |= 4, &[]),
        condition(
            "the context cannot be read",
            Unreadable(DATA),
            |bench| bench.forbidden.push((DATA, true)),
            &[],
        ),
        condition(
            "the SECS is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| {
                if bench.rcx == Machine::window(SECS) {
                    bench.rcx = Machine::window(LONELY);
                }
                bench.other = Some(Other::Uses(Operand::Rcx));
            },
            &[],
        ),
        condition(
            "the page is not valid",
            PfRead(Operand::Rcx),
            |bench| bench.rcx = Machine::window(FREE),
            &["the page is not a SECS"],
        ),
        condition(
            "the page is not a SECS",
            PfRead(Operand::Rcx),
            |bench| bench.rcx = Machine::window(PAGES[0]),
            &[],
        ),
    ]
}

#[test]
fn each_condition_of_edecvirtchild_has_its_outcome() {
    assert_eq!(wrong_alone(edec, &of_edec()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_edecvirtchild_wins() {
    let (pairs, wrong) = wrong_pairs(edec, &of_edec());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 15);
}

#[test]
fn each_condition_of_eincvirtchild_has_its_outcome() {
    assert_eq!(wrong_alone(einc, &of_counting()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_eincvirtchild_wins() {
    let (pairs, wrong) = wrong_pairs(einc, &of_counting());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 12);
}

#[test]
fn each_condition_of_esetcontext_has_its_outcome() {
    assert_eq!(wrong_alone(esetcontext, &of_esetcontext()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_of_esetcontext_wins() {
    let (pairs, wrong) = wrong_pairs(esetcontext, &of_esetcontext());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 16);
}

#[test]
fn the_flags_report_errors_in_zf() {
    let mut busy = Bench { other: Some(Other::Uses(Operand::Rbx)), ..einc() };
    let mut zero = edec();
    zero.machine.platform.page(EpcIndex(SECS)).store(VIRTCHILDCNT, 0);
    let mut held = Bench { rcx: Machine::window(LONELY), ..esetcontext() };
    held.other = Some(Other::Uses(Operand::Rcx));

    assert_eq!(einc().registers(), (0, 2));
    assert_eq!(edec().registers(), (0, 2));
    assert_eq!(esetcontext().registers(), (0, 2));
    assert_eq!(busy.registers(), (7, 0x42), "SGX_EPC_PAGE_CONFLICT");
    assert_eq!(zero.registers(), (25, 0x42), "SGX_INVALID_COUNTER");
    assert_eq!(held.registers(), (7, 0x42), "SGX_EPC_PAGE_CONFLICT");
}

#[test]
fn virtual_children_are_counted_by_any_page_of_the_enclave() {
    let mut bench = einc();
    let window = Machine::window;
    let mut count = |number: u32, page: u32| {
        let outcome = bench.machine.enclv(number, window(page), window(SECS), 0);
        let children = bench.machine.platform.page(EpcIndex(SECS)).load(VIRTCHILDCNT);
        (outcome.expect("the leaf completes").status, children)
    };
    let success = Some(SgxStatus::Success);

    assert_eq!(count(leaf::EINCVIRTCHILD, PAGES[1]), (success, 2));
    assert_eq!(count(leaf::EINCVIRTCHILD, SECS), (success, 3), "the SECS itself");
    assert_eq!(count(leaf::EDECVIRTCHILD, SECS), (success, 2));
    assert_eq!(count(leaf::EDECVIRTCHILD, PAGES[0]), (success, 1));
}

#[test]
fn an_unaligned_secs_is_another_address() {
    let mut bench = Bench { rcx: Machine::window(SECS) + 8, ..einc() };

    assert_eq!(bench.run(), Err(GP));
}

#[test]
fn esetcontext_stores_the_context() {
    let mut bench = esetcontext();
    bench.machine.memory.put(DATA, &0xfedc_ba98_7654_3210_u64.to_le_bytes());

    let status = bench.run();

    assert_eq!(status, Ok(SgxStatus::Success));
    let secs = bench.machine.platform.page(EpcIndex(SECS));
    assert_eq!(secs.load(ENCLAVECONTEXT), 0xfedc_ba98_7654_3210);
}

#[test]
fn an_secs_with_virtual_children_is_removed_outside_epc_virtualization_only() {
    let mut bench = einc();
    let lonely = Machine::window(LONELY);
    bench.machine.enclv(leaf::EINCVIRTCHILD, lonely, lonely, 0).expect("completes");

    bench.machine.memory.epc_virtualization = true;
    let by_guest = bench.machine.eremove(LONELY);
    bench.machine.memory.epc_virtualization = false;
    let by_hypervisor = bench.machine.eremove(LONELY);

    assert_eq!(by_guest, SgxStatus::ChildPresent);
    assert_eq!(by_hypervisor, SgxStatus::Success);
}

#[test]
fn a_conflict_of_eremove_under_epc_virtualization_is_the_hypervisors() {
    let rcx = Machine::window(PAGES[0]);
    let mut bench = Bench { rcx, ..Bench::new(system::EREMOVE) };
    bench.machine.memory.epc_virtualization = true;
    bench.other = Some(Other::Uses(Operand::Rcx));

    assert_eq!(bench.run(), Err(Stop::Conflict(Conflict::PageException { la: La(rcx) })));
}

#[test]
fn unknown_and_unannounced_leaves_fault() {
    let mut announced = einc();
    let mut unannounced = crate::enclave::started();
    let window = Machine::window(0);

    assert_eq!(announced.machine.enclv(3, window, window, 0), Err(GP));
    assert_eq!(announced.machine.enclv(u32::MAX, window, window, 0), Err(GP));
    assert_eq!(unannounced.enclv(leaf::EINCVIRTCHILD, window, window, 0), Err(GP));
}
