//! Replaying, moving and mixing evicted pages.

use std::collections::HashSet;

use cloister_sgx::encls::leaf;
use cloister_sgx::{EpcIndex, SgxStatus, Stop};

use super::store::{EVICTED, PCMD, VA, evict, ewb, load, slot, with_va};
use crate::enclave::{BASE, DATA, PAGEINFO};
use crate::machine::{Machine, epcm_fault};

type Stored = (Vec<u8>, Vec<u8>);

/// Takes the evicted page and its PCMD out of the store.
fn take(machine: &Machine) -> Stored {
    (machine.memory.get(EVICTED, 4096), machine.memory.get(PCMD, 128))
}

/// Puts them back.
fn put(machine: &mut Machine, stored: &Stored) {
    machine.memory.put(EVICTED, &stored.0);
    machine.memory.put(PCMD, &stored.1);
}

/// ELDU to `page`, as `linaddr` of the enclave of [`with_va`].
fn eldu(machine: &mut Machine, page: u32, number: u64, linaddr: u64) -> Result<SgxStatus, Stop> {
    load(machine, leaf::ELDU, page, number, linaddr, Machine::window(0))
}

const FAIL: Result<SgxStatus, Stop> = Ok(SgxStatus::MacCompareFail);
const DONE: Result<SgxStatus, Stop> = Ok(SgxStatus::Success);

#[test]
fn a_page_is_loaded_once() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);

    assert_eq!(eldu(&mut machine, 30, 0, DATA), DONE);
    assert_eq!(eldu(&mut machine, 31, 0, DATA), FAIL, "the slot is empty");
}

#[test]
fn an_older_state_of_a_page_cannot_be_replayed() {
    let mut machine = with_va();
    machine.platform.page(EpcIndex(4)).store(0, 1);
    evict(&mut machine, 4, 0);
    let older = take(&machine);
    eldu(&mut machine, 4, 0, DATA).expect("ELDU completes");
    machine.platform.page(EpcIndex(4)).store(0, 2);
    evict(&mut machine, 4, 0);
    let newer = take(&machine);

    put(&mut machine, &older);
    let replayed = eldu(&mut machine, 4, 0, DATA);
    put(&mut machine, &newer);
    let loaded = eldu(&mut machine, 4, 0, DATA);

    assert_eq!((replayed, loaded), (FAIL, DONE));
    assert_eq!(machine.platform.page(EpcIndex(4)).load(0), 2);
}

#[test]
fn pages_metadata_and_slots_cannot_be_mixed() {
    let mut machine = with_va();
    let other = DATA + 0x1000;
    evict(&mut machine, 4, 0);
    let first = take(&machine);
    evict(&mut machine, 5, 1);
    let second = take(&machine);

    put(&mut machine, &(first.0.clone(), second.1.clone()));
    let mixed = [eldu(&mut machine, 30, 0, DATA), eldu(&mut machine, 30, 1, other)];
    put(&mut machine, &first);
    let wrong_slot = eldu(&mut machine, 30, 1, DATA);
    let wrong_place = eldu(&mut machine, 30, 0, other);
    let right = eldu(&mut machine, 30, 0, DATA);
    put(&mut machine, &second);
    let right_too = eldu(&mut machine, 31, 1, other);

    assert_eq!(mixed, [FAIL; 2]);
    assert_eq!((wrong_slot, wrong_place), (FAIL, FAIL));
    assert_eq!((right, right_too), (DONE, DONE));
}

#[test]
fn a_version_array_guards_the_versions_in_it() {
    let mut machine = with_va();
    machine.encls(leaf::EPA, 3, Machine::window(21), 0).expect("EPA completes");
    evict(&mut machine, 4, 0);
    let child = take(&machine);
    // The version array that holds the child's version goes out and comes back.
    let out = {
        let pageinfo = cloister_sgx::layout::PageInfo {
            srcpge: EVICTED.into(),
            secinfo: PCMD.into(),
            ..Default::default()
        };
        machine.operand(PAGEINFO, &pageinfo);
        machine.status(leaf::EWB, PAGEINFO, Machine::window(VA), Machine::window(21))
    };
    let array = take(&machine);
    let load_array = |machine: &mut Machine, page: u32| {
        put(machine, &array);
        let pageinfo = cloister_sgx::layout::PageInfo {
            srcpge: EVICTED.into(),
            secinfo: PCMD.into(),
            ..Default::default()
        };
        machine.operand(PAGEINFO, &pageinfo);
        machine.status(leaf::ELDU, PAGEINFO, Machine::window(page), Machine::window(21))
    };

    let without = eldu(&mut machine, 4, 0, DATA);
    let back = load_array(&mut machine, VA);
    put(&mut machine, &child);
    let loaded = eldu(&mut machine, 4, 0, DATA);
    let replayed = load_array(&mut machine, 22);

    let write = cloister_x86::PageFaultCode::WRITE;
    assert_eq!(out, SgxStatus::Success);
    assert_eq!(without, Err(epcm_fault(slot(0), write)));
    assert_eq!((back, loaded), (SgxStatus::Success, DONE));
    assert_eq!(replayed, SgxStatus::MacCompareFail, "with a version that was used up");
}

#[test]
fn all_slots_work_and_no_version_comes_twice() {
    let mut machine = with_va();
    let mut versions = HashSet::new();

    for number in 0..512 {
        let evicted = evict(&mut machine, 4, number);
        versions.insert(machine.platform.page(EpcIndex(VA)).load(number as usize * 8));
        let loaded = eldu(&mut machine, 4, number, DATA);

        assert_eq!((evicted, loaded), (SgxStatus::Success, DONE), "slot {number}");
    }

    assert_eq!(versions.len(), 512);
    assert!(!versions.contains(&0));
    assert_eq!(machine.platform.page(EpcIndex(VA)).to_bytes(), [0; 4096]);
}

#[test]
fn equal_pages_look_different_outside() {
    let mut machine = with_va();
    machine.platform.page(EpcIndex(5)).write(0, &machine.platform.page(EpcIndex(6)).to_bytes());

    evict(&mut machine, 5, 0);
    let first = take(&machine);
    evict(&mut machine, 6, 1);
    let second = take(&machine);

    let equal = first.0.iter().zip(&second.0).filter(|(one, other)| one == other).count();
    assert!(equal < 100, "{equal} of 4096 bytes are equal");
}

#[test]
fn a_page_of_an_enclave_that_was_built_anew_is_refused() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);
    for page in [1, 2, 3, 5, 6, 7, 8, 0] {
        machine.eremove(page);
    }
    let again = crate::enclave::Spec::simple();
    let page = take(&machine);
    again.load(&mut machine, 0).expect("the same enclave again");
    put(&mut machine, &page);

    machine.eremove(4);
    let loaded = eldu(&mut machine, 4, 0, DATA);

    assert_eq!(again.base, BASE);
    assert_eq!(loaded, FAIL, "an EID is given once");
}

#[test]
fn a_page_survives_only_with_its_version() {
    let mut machine = with_va();
    evict(&mut machine, 4, 0);
    let lost = ewb(&mut machine, VA, 0);

    assert!(lost.is_err(), "a version array is not evicted into itself");
    machine.eremove(VA);
    machine.encls(leaf::EPA, 3, Machine::window(VA), 0).expect("EPA completes");
    assert_eq!(eldu(&mut machine, 4, 0, DATA), FAIL);
}
