//! EWB.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::Pcmd;
use cloister_sgx::{Conflict, EpcIndex, EpcmFlags, SgxStatus, Stop, enclv};
use cloister_x86::La;
use zerocopy::FromBytes as _;

use super::bench::Outcome::{Gp, Pf, Status, Unreadable, Unwritable};
use super::bench::{
    Bench, Condition, FREE, LONELY, Operand, Other, PAGES, RAM, SECS, condition, wrong_alone,
    wrong_pairs,
};
use super::store::{EVICTED, PCMD, VA};
use crate::enclave::{BASE, PAGEINFO};
use crate::machine::{GP, Machine};

/// The first page is blocked and tracked, the third only blocked.
pub(super) fn good() -> Bench {
    let mut bench = Bench { rcx: Machine::window(PAGES[0]), ..Bench::new(leaf::EWB) };
    bench.machine.status(leaf::EBLOCK, 0, Machine::window(PAGES[0]), 0);
    bench.machine.status(leaf::ETRACK, 0, Machine::window(SECS), 0);
    bench.machine.status(leaf::EBLOCK, 0, Machine::window(PAGES[2]), 0);
    let lonely = Machine::window(LONELY);
    bench.machine.enclv(enclv::leaf::EINCVIRTCHILD, lonely, lonely, 0).expect("completes");
    bench
}

/// Conditions on what RCX names, which is one thing at a time.
const KINDS: &[&str] = &[
    "the page is not valid",
    "the page is not blocked",
    "the page is not tracked",
    "the SECS has pages",
    "the SECS has virtual pages",
];

fn conditions() -> Vec<Condition> {
    vec![
        condition("PAGEINFO is not aligned", Gp, |bench| bench.rbx |= 16, &[]),
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 16, &[]),
        condition(
            "the page is not in the EPC",
            Pf(Operand::Rcx),
            |bench| bench.rcx = RAM,
            &[
                "the slot is in the page",
                "the page is in use",
                "the page is not valid",
                "the page is not blocked",
                "the page is not tracked",
                "the SECS has pages",
                "the SECS has virtual pages",
            ],
        ),
        condition("the slot is not aligned", Gp, |bench| bench.rdx |= 4, &[]),
        condition(
            "the slot is not in the EPC",
            Pf(Operand::Rdx),
            |bench| bench.rdx = RAM,
            &[
                "the slot is in the page",
                "the version array is in use",
                "the version array is not valid",
                "the slot's page is not a version array",
                "the slot is occupied",
            ],
        ),
        condition(
            "the slot is in the page",
            Gp,
            |bench| bench.rdx = bench.rcx & !0xfff,
            &[
                "the version array is in use",
                "the version array is not valid",
                "the slot's page is not a version array",
                "the slot is occupied",
            ],
        ),
        condition(
            "PAGEINFO cannot be read",
            Unreadable(PAGEINFO),
            |bench| bench.forbidden.push((PAGEINFO, true)),
            &[
                "LINADDR is not zero",
                "SECS is not zero",
                "PCMD is not aligned",
                "SRCPGE is not aligned",
                "PAGEINFO cannot be written",
            ],
        ),
        condition("LINADDR is not zero", Gp, |bench| bench.pageinfo.linaddr = BASE.into(), &[]),
        condition("SECS is not zero", Gp, |bench| bench.pageinfo.secs = 8.into(), &[]),
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
            Gp,
            |bench| bench.other = Some(Other::Uses(Operand::Rcx)),
            // The other processor blocks and tracks what it evicts; an SECS with pages is nobody's
            // for long; EPC virtualization makes it a VM exit.
            &[
                "the page is not blocked",
                "the page is not tracked",
                "the SECS has pages",
                "the SECS has virtual pages",
            ],
        ),
        condition(
            "the version array is in use",
            Gp,
            |bench| bench.other = Some(Other::Uses(Operand::Rdx)),
            &[],
        ),
        condition(
            "the page is not valid",
            Pf(Operand::Rcx),
            |bench| bench.rcx = Machine::window(FREE),
            KINDS,
        ),
        condition(
            "the version array is not valid",
            Pf(Operand::Rdx),
            |bench| bench.rdx = Machine::window(FREE + 1),
            &["the slot's page is not a version array", "the slot is occupied"],
        ),
        condition(
            "the slot's page is not a version array",
            Pf(Operand::Rdx),
            |bench| bench.rdx = Machine::window(PAGES[1]) + 8,
            // The same page; and what it holds there is not a version.
            &["the page is not blocked", "the slot is occupied"],
        ),
        condition(
            "the page is not blocked",
            Status(SgxStatus::PageNotBlocked),
            |bench| bench.rcx = Machine::window(PAGES[1]),
            KINDS,
        ),
        condition(
            "the page is not tracked",
            Status(SgxStatus::NotTracked),
            |bench| bench.rcx = Machine::window(PAGES[2]),
            // The other processor begins a tracking cycle.
            &[
                "the page is not valid",
                "the page is not blocked",
                "the SECS has pages",
                "the SECS has virtual pages",
            ],
        ),
        condition(
            "the SECS has pages",
            Status(SgxStatus::ChildPresent),
            |bench| bench.rcx = Machine::window(SECS),
            KINDS,
        ),
        condition(
            "the SECS has virtual pages",
            Status(SgxStatus::ChildPresent),
            |bench| {
                bench.rcx = Machine::window(LONELY);
                bench.machine.memory.epc_virtualization = true;
            },
            KINDS,
        ),
        condition(
            "SRCPGE cannot be written",
            Unwritable(EVICTED),
            |bench| bench.forbidden.push((EVICTED, false)),
            &[],
        ),
        condition(
            "PCMD cannot be written",
            Unwritable(PCMD),
            |bench| bench.forbidden.push((PCMD, false)),
            &[],
        ),
        condition(
            "PAGEINFO cannot be written",
            Unwritable(PAGEINFO),
            |bench| bench.forbidden.push((PAGEINFO, false)),
            &[],
        ),
        condition(
            "the slot is occupied",
            Status(SgxStatus::VaSlotOccupied),
            |bench| bench.machine.platform.page(EpcIndex(VA)).store(0, 7),
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
    assert_eq!(pairs, 192);
}

#[test]
fn the_flags_tell_errors_from_information() {
    let run = |page: u32| Bench { rcx: Machine::window(page), ..good() }.registers();
    let mut occupied = good();
    occupied.machine.platform.page(EpcIndex(VA)).store(0, 7);

    assert_eq!(run(PAGES[0]), (0, 2));
    assert_eq!(run(PAGES[1]), (10, 0x42), "SGX_PAGE_NOT_BLOCKED with ZF");
    assert_eq!(run(PAGES[2]), (11, 0x42), "SGX_NOT_TRACKED with ZF");
    assert_eq!(occupied.registers(), (12, 3), "SGX_VA_SLOT_OCCUPIED with CF");
    assert_eq!(run(SECS), (13, 0x42), "SGX_CHILD_PRESENT with ZF");
}

#[test]
fn pcmd_linaddr_and_the_slot_are_written() {
    let mut bench = good();
    let contents = bench.machine.platform.page(EpcIndex(PAGES[0])).to_bytes();
    bench.machine.memory.put(PCMD, &[0xff; 128]);

    let status = bench.run();

    let memory = &bench.machine.memory;
    let pcmd = Pcmd::read_from_bytes(&memory.get(PCMD, 128)).expect("128 bytes");
    assert_eq!(status, Ok(SgxStatus::Success));
    assert_eq!(memory.get(PAGEINFO, 8), (BASE + 0x1000).to_le_bytes());
    assert_eq!(pcmd.secinfo.flags.get(), 0x203);
    assert_eq!((pcmd.secinfo.reserved, pcmd.reserved), ([0; 56], [0; 40]));
    assert_eq!(pcmd.enclaveid.get(), bench.machine.platform.page(EpcIndex(SECS)).load(296));
    assert_ne!(memory.get(EVICTED, 4096), contents);
    assert_ne!(bench.machine.platform.page(EpcIndex(VA)).load(0), 0);
    assert!(!bench.machine.platform.epcm(EpcIndex(PAGES[0])).valid());
}

#[test]
fn what_fails_leaves_the_page_and_the_slot_alone() {
    for condition in conditions() {
        if condition.name == "the slot is occupied" || condition.name.contains("in use") {
            continue;
        }
        let mut bench = good();
        (condition.arrange)(&mut bench);

        let outcome = bench.run();

        let name = condition.name;
        let entry = bench.machine.platform.epcm(EpcIndex(PAGES[0]));
        assert_ne!(outcome, Ok(SgxStatus::Success), "{name}");
        assert!(entry.flags.contains(EpcmFlags::VALID | EpcmFlags::BLOCKED), "{name}");
        assert_eq!(bench.machine.platform.page(EpcIndex(VA)).load(0), 0, "{name}");
    }
}

#[test]
fn a_used_slot_is_overwritten_and_the_page_is_evicted_all_the_same() {
    let mut bench = good();
    bench.machine.platform.page(EpcIndex(VA)).store(0, 7);

    let status = bench.run();

    assert_eq!(status, Ok(SgxStatus::VaSlotOccupied));
    assert!(!bench.machine.platform.epcm(EpcIndex(PAGES[0])).valid());
    assert_ne!(bench.machine.platform.page(EpcIndex(VA)).load(0), 7);
}

#[test]
fn an_secs_with_virtual_pages_is_evicted_outside_epc_virtualization() {
    let mut bench = Bench { rcx: Machine::window(LONELY), ..good() };

    assert_eq!(bench.run(), Ok(SgxStatus::Success));
}

#[test]
fn a_conflict_under_epc_virtualization_is_the_hypervisors() {
    let mut page = Bench { other: Some(Other::Uses(Operand::Rcx)), ..good() };
    page.machine.memory.epc_virtualization = true;
    let mut array = Bench { other: Some(Other::Uses(Operand::Rdx)), ..good() };
    array.machine.memory.epc_virtualization = true;

    let conflict = Conflict::PageException { la: La(page.rcx) };
    assert_eq!(page.run(), Err(Stop::Conflict(conflict)));
    assert_eq!(array.run(), Err(GP), "only the page's conflict exits");
}

#[test]
fn two_pages_of_an_enclave_are_evicted_at_once() {
    let mut bench = Bench { other: Some(Other::Evicts(PAGES[2])), ..good() };

    assert_eq!(bench.run(), Ok(SgxStatus::Success));
}
