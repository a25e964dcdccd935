//! EPA, EBLOCK, ETRACK, EWB, ELDB and ELDU.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::PageInfo;
use cloister_sgx::{EpcIndex, EpcmFlags, PageType, SgxStatus, Stop};
use cloister_x86::PageFaultCode;

use crate::enclave::{BASE, DATA, PAGEINFO, Spec, TCS, TCS_2, started};
use crate::machine::{GP, Machine, Mapping, OPERANDS, epcm_fault};

/// Where evicted pages and their PCMDs go.
const EVICTED: u64 = OPERANDS + 0x8000;
const PCMD: u64 = OPERANDS + 0x1_0000;
/// The version array.
const VA: u32 = 20;
const W: PageFaultCode = PageFaultCode::WRITE;

/// The started enclave and an empty version array.
fn with_va() -> Machine {
    let mut machine = started();
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    machine.memory.put(EVICTED, &[0; 4096]);
    machine.memory.put(PCMD, &[0; 128]);
    machine
}

fn slot(number: u64) -> u64 {
    Machine::window(VA) + number * 8
}

fn ewb(machine: &mut Machine, page: u32, number: u64) -> Result<SgxStatus, Stop> {
    let pageinfo = PageInfo { srcpge: EVICTED.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    let outcome = machine.encls(leaf::EWB, PAGEINFO, Machine::window(page), slot(number))?;
    Ok(outcome.status.expect("EWB reports"))
}

/// EBLOCK, ETRACK and EWB of a child page.
fn evict(machine: &mut Machine, page: u32, number: u64) -> SgxStatus {
    machine.status(leaf::EBLOCK, 0, Machine::window(page), 0);
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    ewb(machine, page, number).expect("EWB completes")
}

/// ELDU or ELDB to `page`, as `linaddr` of the enclave with its SECS at `secs` (0: none).
fn load(
    machine: &mut Machine,
    number: u32,
    page: u32,
    version: u64,
    linaddr: u64,
    secs: u64,
) -> Result<SgxStatus, Stop> {
    let pageinfo = PageInfo {
        linaddr: linaddr.into(),
        srcpge: EVICTED.into(),
        secinfo: PCMD.into(),
        secs: secs.into(),
    };
    machine.operand(PAGEINFO, &pageinfo);
    let outcome = machine.encls(number, PAGEINFO, Machine::window(page), slot(version))?;
    Ok(outcome.status.expect("ELDU reports"))
}

fn reload(machine: &mut Machine, page: u32, version: u64) -> Result<SgxStatus, Stop> {
    load(machine, leaf::ELDU, page, version, DATA, Machine::window(0))
}

#[test]
fn epa_makes_an_empty_version_array() {
    let mut machine = Machine::new(8);
    machine.platform.page(EpcIndex(2)).store(0, 99);

    let wrong_type = machine.encls(leaf::EPA, 2, Machine::window(2), 0);
    let made = machine.encls(leaf::EPA, 3, Machine::window(2), 0);
    let again = machine.encls(leaf::EPA, 3, Machine::window(2), 0);

    assert_eq!(wrong_type, Err(GP));
    assert!(made.is_ok());
    assert_eq!(again, Err(epcm_fault(Machine::window(2), W)));
    assert!(machine.platform.epcm(EpcIndex(2)).is(PageType::Va));
    assert_eq!(machine.platform.page(EpcIndex(2)).to_bytes(), [0; 4096]);
    assert_eq!(machine.eremove(2), SgxStatus::Success);
}

#[test]
fn a_page_survives_eviction_and_reload() {
    let mut machine = with_va();
    machine.platform.page(EpcIndex(4)).store(8, 0x1234_5678_9abc_def0);
    let contents = machine.platform.page(EpcIndex(4)).to_bytes();
    let entry = machine.platform.epcm(EpcIndex(4));

    let evicted = evict(&mut machine, 4, 0);
    let linaddr = machine.memory.get(PAGEINFO, 8);
    let cipher = machine.memory.get(EVICTED, 4096);
    let valid = machine.platform.epcm(EpcIndex(4)).valid();
    let version = machine.platform.page(EpcIndex(VA)).load(0);
    let loaded = reload(&mut machine, 30, 0);

    assert_eq!(evicted, SgxStatus::Success);
    assert_eq!(linaddr, DATA.to_le_bytes());
    assert_ne!(cipher, contents);
    assert!(!valid);
    assert_ne!(version, 0);
    assert_eq!(loaded, Ok(SgxStatus::Success));
    let again = machine.platform.epcm(EpcIndex(30));
    assert_eq!(again, entry);
    assert_eq!(machine.platform.page(EpcIndex(30)).to_bytes(), contents);
    assert_eq!(machine.platform.page(EpcIndex(VA)).load(0), 0, "the version is used up");
}

#[test]
fn eldb_loads_blocked() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);

    let secs = Machine::window(0);
    let loaded = load(&mut machine, leaf::ELDB, 30, 0, DATA, secs);
    let entry = machine.platform.epcm(EpcIndex(30));
    let evicted_again = ewb(&mut machine, 30, 1);

    assert_eq!(loaded, Ok(SgxStatus::Success));
    assert!(entry.flags.contains(EpcmFlags::BLOCKED));
    assert_eq!(evicted_again, Ok(SgxStatus::Success), "nobody can have a translation to it");
}

#[test]
fn a_page_is_not_evicted_before_it_is_blocked_and_tracked() {
    let mut machine = with_va();

    let unblocked = ewb(&mut machine, 4, 0);
    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
    let untracked = ewb(&mut machine, 4, 0);
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    let tracked = ewb(&mut machine, 4, 0);

    assert_eq!(unblocked, Ok(SgxStatus::PageNotBlocked));
    assert_eq!(untracked, Ok(SgxStatus::NotTracked));
    assert_eq!(tracked, Ok(SgxStatus::Success));
}

#[test]
fn eviction_waits_for_the_threads_of_the_tracking_cycle() {
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

    assert_eq!(first_cycle, SgxStatus::Success);
    assert_eq!(early, Ok(SgxStatus::NotTracked));
    assert_eq!(second_cycle, SgxStatus::PrevTrkIncmpl);
    assert_eq!(late, Ok(SgxStatus::Success), "the second thread entered after the block");
}

#[test]
fn eblock_tells_the_state_of_the_page() {
    let mut machine = with_va();
    let mut run = |page: u32| {
        let returned =
            machine.encls_registers(leaf::EBLOCK, 0, Machine::window(page), 0).expect("completes");
        (returned.rax, returned.rflags & 0x41)
    };

    assert_eq!(run(4), (0, 0));
    assert_eq!(run(4), (3, 1), "SGX_BLKSTATE with CF");
    assert_eq!(run(0), (18, 1), "SGX_PG_IS_SECS with CF");
    assert_eq!(run(VA), (5, 1), "SGX_NOTBLOCKABLE with CF");
    assert_eq!(run(25), (6, 0x40), "SGX_PG_INVLD with ZF");
}

#[test]
fn etrack_needs_an_secs() {
    let mut machine = with_va();
    let window = Machine::window;

    assert_eq!(machine.encls(leaf::ETRACK, 0, window(4), 0), Err(epcm_fault(window(4), W)));
    assert_eq!(machine.encls(leaf::ETRACK, 0, window(25), 0), Err(epcm_fault(window(25), W)));
    assert_eq!(machine.encls(leaf::ETRACK, 0, window(0) + 8, 0), Err(GP));
}

#[test]
fn every_flipped_bit_is_detected() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);
    let flips = (0..4096 * 8).step_by(1021).map(|bit| (EVICTED, bit));
    // SECINFO and reserved bytes and MAC; ENCLAVEID is a handle for software only.
    let pcmd = (0..64 * 8).chain(72 * 8..128 * 8).map(|bit| (PCMD, bit));
    // A type without a parent asks for PAGEINFO.SECS = 0 before anything is decrypted.
    let typed = |bit: u64| (8..16).contains(&bit);

    for (at, bit) in flips.chain(pcmd) {
        let address = at + bit / 8;
        let byte = machine.memory.get(address, 1)[0];
        machine.memory.put(address, &[byte ^ 1 << (bit % 8)]);
        let outcome = reload(&mut machine, 30, 0);
        machine.memory.put(address, &[byte]);
        if at == PCMD && typed(bit) {
            assert_ne!(outcome, Ok(SgxStatus::Success), "type bit {bit}");
        } else {
            assert_eq!(outcome, Ok(SgxStatus::MacCompareFail), "{at:#x} bit {bit}");
        }
    }
    for bit in 0..64 {
        let va = EpcIndex(VA);
        let version = machine.platform.page(va).load(0);
        machine.platform.page(va).store(0, version ^ 1 << bit);
        let outcome = reload(&mut machine, 30, 0);
        machine.platform.page(va).store(0, version);
        assert_eq!(outcome, Ok(SgxStatus::MacCompareFail), "version bit {bit}");
    }
    assert!(!machine.platform.epcm(EpcIndex(30)).valid());
    assert_eq!(reload(&mut machine, 30, 0), Ok(SgxStatus::Success));
}

#[test]
fn a_page_cannot_be_replayed_moved_or_given_to_another_enclave() {
    let mut machine = with_va();
    let mut other = Spec::simple();
    other.pages.truncate(2);
    other.ecreate(&mut machine, 10).expect("a second enclave");
    evict(&mut machine, 4, 0);

    let moved = load(&mut machine, leaf::ELDU, 30, 0, DATA + 0x5000, Machine::window(0));
    let stolen = load(&mut machine, leaf::ELDU, 30, 0, DATA, Machine::window(10));
    let loaded = reload(&mut machine, 30, 0);
    let twice = reload(&mut machine, 31, 0);

    assert_eq!(moved, Ok(SgxStatus::MacCompareFail));
    assert_eq!(stolen, Ok(SgxStatus::MacCompareFail));
    assert_eq!(loaded, Ok(SgxStatus::Success));
    assert_eq!(twice, Ok(SgxStatus::MacCompareFail), "the slot is empty");
}

#[test]
fn a_used_slot_is_overwritten_and_reported() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);

    machine.status(leaf::EBLOCK, 0, Machine::window(5), 0);
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    let second = ewb(&mut machine, 5, 0);

    assert_eq!(second, Ok(SgxStatus::VaSlotOccupied));
    assert!(!machine.platform.epcm(EpcIndex(5)).valid(), "the page is evicted all the same");
}

#[test]
fn a_whole_enclave_goes_out_and_comes_back() {
    let mut machine = with_va();
    let mut stored = Vec::new();
    for page in 1..=8u32 {
        let status = evict(&mut machine, page, u64::from(page));
        assert_eq!(status, SgxStatus::Success, "page {page}");
        stored.push((machine.memory.get(EVICTED, 4096), machine.memory.get(PCMD, 128)));
    }
    let secs = ewb(&mut machine, 0, 0).expect("EWB completes");
    assert_eq!(secs, SgxStatus::Success);

    let back = load(&mut machine, leaf::ELDU, 9, 0, 0, 0);
    let parent = Machine::window(9);
    let mut statuses = Vec::new();
    for (number, (page, pcmd)) in stored.iter().enumerate() {
        machine.memory.put(EVICTED, page);
        machine.memory.put(PCMD, pcmd);
        let linaddr = BASE + number as u64 * 4096;
        let target = 10 + number as u32;
        let version = number as u64 + 1;
        statuses.push(load(&mut machine, leaf::ELDU, target, version, linaddr, parent));
        let index = EpcIndex(target);
        machine.memory.mappings.insert(linaddr, Mapping::Epc { index, writable: true });
    }

    assert_eq!(back, Ok(SgxStatus::Success));
    assert_eq!(statuses, vec![Ok(SgxStatus::Success); 8]);
    assert!(machine.enclu(user::EENTER, TCS, 0x40_2000, 0).is_ok(), "it still runs");
    assert_eq!(machine.eremove(9), SgxStatus::ChildPresent);
}

#[test]
fn an_secs_with_children_stays() {
    let mut machine = with_va();
    assert_eq!(ewb(&mut machine, 0, 0), Ok(SgxStatus::ChildPresent));
}

#[test]
fn a_version_array_can_itself_be_evicted() {
    let mut machine = with_va();
    machine.encls(leaf::EPA, 3, Machine::window(21), 0).expect("EPA completes");
    machine.platform.page(EpcIndex(21)).store(16, 77);

    let evicted = ewb(&mut machine, 21, 5);
    let loaded = load(&mut machine, leaf::ELDU, 22, 5, 0, 0);

    assert_eq!(evicted, Ok(SgxStatus::Success));
    assert_eq!(loaded, Ok(SgxStatus::Success));
    assert!(machine.platform.epcm(EpcIndex(22)).is(PageType::Va));
    assert_eq!(machine.platform.page(EpcIndex(22)).load(16), 77);
}

#[test]
fn ewb_and_eldu_check_their_operands() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);
    let window = Machine::window;
    let mut run = |number: u32, rbx: u64, rcx: u64, rdx: u64| {
        let secs = if number == leaf::EWB { 0 } else { window(0) };
        let pageinfo = PageInfo {
            linaddr: if number == leaf::EWB { 0 } else { DATA }.into(),
            srcpge: EVICTED.into(),
            secinfo: PCMD.into(),
            secs: secs.into(),
        };
        machine.operand(PAGEINFO, &pageinfo);
        machine.encls(number, rbx, rcx, rdx).map(drop)
    };

    for number in [leaf::EWB, leaf::ELDU, leaf::ELDB] {
        let page = if number == leaf::EWB { window(5) } else { window(30) };
        assert_eq!(run(number, PAGEINFO + 8, page, slot(0)), Err(GP), "PAGEINFO alignment");
        assert_eq!(run(number, PAGEINFO, page + 8, slot(0)), Err(GP), "page alignment");
        assert_eq!(run(number, PAGEINFO, page, slot(0) + 4), Err(GP), "slot alignment");
        assert_eq!(run(number, PAGEINFO, PCMD & !0xfff, slot(0)), Err(epcm_fault(PCMD, W)));
        assert_eq!(run(number, PAGEINFO, page, PCMD), Err(epcm_fault(PCMD, W)), "slot not EPC");
        let no_va = window(6);
        assert_eq!(run(number, PAGEINFO, page, no_va), Err(epcm_fault(no_va, W)), "no VA page");
        assert_eq!(run(number, PAGEINFO, window(VA), slot(0)), Err(GP), "its own slot");
    }
    assert_eq!(run(leaf::EWB, PAGEINFO, window(30), slot(1)), Err(epcm_fault(window(30), W)));
    assert_eq!(run(leaf::ELDU, PAGEINFO, window(5), slot(0)), Err(epcm_fault(window(5), W)));
}

#[test]
fn ewb_leaves_the_page_alone_when_its_output_faults() {
    let mut machine = with_va();
    machine.memory.mappings.insert(PCMD & !0xfff, Mapping::Ram { writable: false });
    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0);

    let pageinfo = PageInfo { srcpge: EVICTED.into(), secinfo: PCMD.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    let stopped = machine.encls(leaf::EWB, PAGEINFO, Machine::window(4), slot(0));

    assert!(matches!(stopped, Err(Stop::Fault(_))));
    assert!(machine.platform.epcm(EpcIndex(4)).valid());
    assert_eq!(machine.platform.page(EpcIndex(VA)).load(0), 0);
}
