//! ERDINFO.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{RdInfo, RdInfoStatus, SecInfo, SecInfoFlags};
use cloister_sgx::{EpcIndex, PageType, SgxStatus, enclv};
use zerocopy::FromBytes as _;

use super::bench::Outcome::{Gp, Status, Unwritable};
use super::bench::{
    Bench, Condition, DATA, FREE, LONELY, Operand, Other, PAGES, RAM, SECS, condition, wrong_alone,
    wrong_pairs,
};
use super::store::{VA, with_va};
use crate::enclave::SECINFO;
use crate::machine::{GP, Machine};

pub(super) fn good() -> Bench {
    Bench { rbx: DATA, rcx: Machine::window(PAGES[0]), ..Bench::new(leaf::ERDINFO) }
}

fn conditions() -> Vec<Condition> {
    vec![
        condition("RDINFO is not aligned", Gp, |bench| bench.rbx |= 16, &[]),
        condition("the page is not aligned", Gp, |bench| bench.rcx |= 16, &[]),
        condition(
            "the page is not in the EPC",
            Status(SgxStatus::PgNonEpc),
            |bench| bench.rcx = RAM,
            &["the page is in use", "the page is not valid"],
        ),
        condition(
            "the page is in use",
            Status(SgxStatus::EpcPageConflict),
            |bench| bench.other = Some(Other::Uses(Operand::Rcx)),
            &[],
        ),
        condition(
            "the page is not valid",
            Status(SgxStatus::PgInvld),
            |bench| bench.rcx = Machine::window(FREE),
            &[],
        ),
        condition(
            "RDINFO cannot be written",
            Unwritable(DATA),
            |bench| bench.forbidden.push((DATA, false)),
            &[],
        ),
    ]
}

/// RDINFO of an EPC page, written over ones.
fn rdinfo(machine: &mut Machine, page: u32) -> RdInfo {
    machine.memory.put(DATA, &[0xff; 32]);
    let status = machine.status(leaf::ERDINFO, DATA, Machine::window(page), 0);
    assert_eq!(status, SgxStatus::Success);
    assert_eq!(machine.memory.get(DATA + 24, 8), [0xff; 8], "RDINFO is 24 bytes");
    RdInfo::read_from_bytes(&machine.memory.get(DATA, 24)).expect("24 bytes")
}

fn triple(rdinfo: RdInfo) -> (u64, u64, u64) {
    (rdinfo.status.get(), rdinfo.flags.get(), rdinfo.enclavecontext.get())
}

#[test]
fn each_condition_has_its_outcome() {
    assert_eq!(wrong_alone(good, &conditions()), [""; 0]);
}

#[test]
fn the_first_of_two_conditions_wins() {
    let (pairs, wrong) = wrong_pairs(good, &conditions());

    assert_eq!(wrong, [""; 0]);
    assert_eq!(pairs, 12);
}

#[test]
fn the_flags_tell_errors_from_information() {
    let run = |rcx: u64| Bench { rcx, ..good() }.registers();
    let mut busy = Bench { other: Some(Other::Uses(Operand::Rcx)), ..good() };

    assert_eq!(run(Machine::window(SECS)), (0, 2));
    assert_eq!(run(Machine::window(FREE)), (6, 3), "SGX_PG_INVLD with CF");
    assert_eq!(busy.registers(), (7, 0x42), "SGX_EPC_PAGE_CONFLICT with ZF");
    assert_eq!(run(RAM), (26, 3), "SGX_PG_NONEPC with CF");
}

#[test]
fn rdinfo_tells_type_permissions_and_state() {
    let mut machine = with_va();
    let window = Machine::window;
    let restricted = SecInfo::new(SecInfoFlags::R, PageType::Reg);
    machine.operand(SECINFO, &restricted);
    machine.status(leaf::EMODPR, SECINFO, window(5), 0);
    let trim = SecInfo::new(SecInfoFlags::empty(), PageType::Trim);
    machine.operand(SECINFO, &trim);
    machine.status(leaf::EMODT, SECINFO, window(6), 0);
    machine.status(leaf::EBLOCK, 0, window(4), 0);

    let mut told = |page| triple(rdinfo(&mut machine, page));

    assert_eq!(told(0), (RdInfoStatus::CHILDPRESENT.bits(), 0, 0), "SECS");
    assert_eq!(told(1), (0, 0x100, 0), "TCS");
    assert_eq!(told(3), (0, 0x205, 0), "code");
    assert_eq!(told(4), (0, 0x203 | 1 << 63, 0), "blocked");
    assert_eq!(told(5), (0, 0x221, 0), "PR");
    assert_eq!(told(6), (0, 0x410, 0), "trimmed, MODIFIED");
    assert_eq!(told(VA), (0, 0x300, 0), "version array");
}

#[test]
fn pending_pages_are_told() {
    let mut machine = with_va();
    let pageinfo = cloister_sgx::layout::PageInfo {
        linaddr: (crate::enclave::BASE + 0x9000).into(),
        secs: Machine::window(0).into(),
        ..Default::default()
    };
    machine.operand(crate::enclave::PAGEINFO, &pageinfo);
    let pages = crate::enclave::PAGEINFO;
    machine.encls(leaf::EAUG, pages, Machine::window(12), 0).expect("EAUG completes");

    assert_eq!(triple(rdinfo(&mut machine, 12)), (0, 0x20b, 0));
}

#[test]
fn the_context_is_that_of_the_secs() {
    let mut bench = good();
    let machine = &mut bench.machine;
    machine.memory.put(RAM, &0x1122_3344_5566_7788_u64.to_le_bytes());
    let default = triple(rdinfo(machine, LONELY)).2;
    machine
        .enclv(enclv::leaf::ESETCONTEXT, 0, Machine::window(SECS), RAM)
        .expect("ESETCONTEXT completes");

    assert_eq!(default, u64::from(LONELY), "ECREATE names the page itself");
    assert_eq!(triple(rdinfo(machine, SECS)).2, 0x1122_3344_5566_7788);
    assert_eq!(triple(rdinfo(machine, PAGES[1])).2, 0x1122_3344_5566_7788);
    assert_eq!(triple(rdinfo(machine, VA)).2, 0);
}

#[test]
fn virtual_children_are_told_apart_outside_epc_virtualization_only() {
    let mut bench = good();
    let machine = &mut bench.machine;
    for secs in [SECS, LONELY] {
        let window = Machine::window(secs);
        machine.enclv(enclv::leaf::EINCVIRTCHILD, window, window, 0).expect("completes");
    }

    let root = [SECS, LONELY].map(|secs| triple(rdinfo(machine, secs)));
    machine.memory.epc_virtualization = true;
    let guest = [SECS, LONELY].map(|secs| triple(rdinfo(machine, secs)));
    let child = triple(rdinfo(machine, PAGES[0]));

    assert_eq!(root, [(3, 0, u64::from(SECS)), (2, 0, u64::from(LONELY))]);
    assert_eq!(guest, [(1, 0, 0), (1, 0, 0)]);
    assert_eq!(child, (0, 0x203, u64::from(SECS)));
}

#[test]
fn an_invalid_page_leaves_rdinfo_alone() {
    let mut bench = Bench { rcx: Machine::window(FREE), ..good() };
    bench.machine.memory.put(DATA, &[0xff; 32]);

    let status = bench.run();

    assert_eq!(status, Ok(SgxStatus::PgInvld));
    assert_eq!(bench.machine.memory.get(DATA, 32), [0xff; 32]);
}

#[test]
fn a_page_is_only_read() {
    let mut bench = good();
    let read_only = crate::machine::Mapping::Epc { index: EpcIndex(PAGES[0]), writable: false };
    bench.machine.memory.mappings.insert(bench.rcx, read_only);

    assert_eq!(bench.run(), Ok(SgxStatus::Success));
}

#[test]
fn erdinfo_must_be_announced() {
    let mut machine = Machine::new(8);

    assert_eq!(machine.encls(leaf::ERDINFO, DATA, Machine::window(0), 0), Err(GP));
}
