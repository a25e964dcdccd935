//! What comes back is what went out: pages of every kind and state, SECS and whole enclaves.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::layout::{EinitToken, PageInfo, SecInfo, SecInfoFlags, Secs};
use cloister_sgx::{EpcIndex, EpcmFlags, EpcmView, ExitingEvent, PageType, SgxStatus, enclv};

use super::store::{
    EVICTED, PCMD, VA, add_va, evict, evict_from, ewb, load, oversubscribed, with_va,
};
use crate::enclave::{BASE, DATA, PAGEINFO, SECINFO, Spec, TCS};
use crate::machine::{GP, Machine, Mapping};
use crate::signer::Signer;

/// Takes page `page` of the enclave out and brings it back to the same EPC page: its EPCM entry
/// and contents before and after.
fn out_and_in(machine: &mut Machine, page: u32) -> [(EpcmView, Vec<u8>); 2] {
    let index = EpcIndex(page);
    let state = |machine: &Machine| {
        (machine.platform.epcm(index), machine.platform.page(index).to_bytes().to_vec())
    };
    let before = state(machine);
    let out = evict(machine, page, 3);
    assert_eq!(out, SgxStatus::Success);
    machine.platform.page(index).clear();
    let secs = Machine::window(0);
    let back = load(machine, leaf::ELDU, page, 3, before.0.address, secs);
    assert_eq!(back, Ok(SgxStatus::Success));
    [before, state(machine)]
}

/// EMODT or EMODPR of page `page` with this SECINFO.
fn modify(machine: &mut Machine, number: u32, page: u32, secinfo: SecInfo) {
    machine.operand(SECINFO, &secinfo);
    let status = machine.status(number, SECINFO, Machine::window(page), 0);
    assert_eq!(status, SgxStatus::Success);
}

/// A place in the enclave for the SECINFO of EACCEPT: on the data page.
fn accept(machine: &mut Machine, secinfo: SecInfo, la: u64) -> u64 {
    machine.platform.page(EpcIndex(4)).write(0, zerocopy::IntoBytes::as_bytes(&secinfo));
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine.enclu(user::EACCEPT, DATA, la, 0).expect("EACCEPT completes");
    let status = machine.cpu.gpr[0];
    machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    status
}

#[test]
fn regular_pages_survive() {
    let mut machine = with_va();
    machine.platform.page(EpcIndex(4)).store(8, 0x1234_5678_9abc_def0);

    let [before, after] = out_and_in(&mut machine, 4);

    assert_eq!(before, after);
    assert_eq!(machine.platform.page(EpcIndex(VA)).load(24), 0, "the version is used up");
}

#[test]
fn a_thread_survives_between_its_exit_and_its_resumption() {
    let mut machine = with_va();
    machine.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");
    machine.cpu.gpr[6] = 0x5151;
    machine.xsave.image_mut(3).fill(0);
    machine.aex(ExitingEvent::Interrupt).expect("inside");

    let tcs = out_and_in(&mut machine, 1);
    let frame = out_and_in(&mut machine, 5);
    machine.enclu(user::ERESUME, TCS, 0x40_2000, 0).expect("ERESUME completes");

    assert_eq!((&tcs[0], &frame[0]), (&tcs[1], &frame[1]));
    assert_eq!(machine.cpu.gpr[6], 0x5151);
}

#[test]
fn pending_pages_survive_and_are_accepted() {
    let mut machine = with_va();
    let la = BASE + 0x9000;
    let pageinfo =
        PageInfo { linaddr: la.into(), secs: Machine::window(0).into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    machine.encls(leaf::EAUG, PAGEINFO, Machine::window(12), 0).expect("EAUG completes");
    machine.memory.mappings.insert(la, Mapping::Epc { index: EpcIndex(12), writable: true });

    let [before, after] = out_and_in(&mut machine, 12);
    let flags = SecInfoFlags::R | SecInfoFlags::W | SecInfoFlags::PENDING;
    let accepted = accept(&mut machine, SecInfo::new(flags, PageType::Reg), la);

    assert_eq!(before, after);
    assert!(after.0.flags.contains(EpcmFlags::PENDING));
    assert_eq!(accepted, SgxStatus::Success.rax());
}

#[test]
fn trimmed_pages_survive_and_are_accepted() {
    let mut machine = with_va();
    let trim = SecInfo::new(SecInfoFlags::empty(), PageType::Trim);
    modify(&mut machine, leaf::EMODT, 7, trim);

    let [before, after] = out_and_in(&mut machine, 7);
    let modified = SecInfo::new(SecInfoFlags::MODIFIED, PageType::Trim);
    let accepted = accept(&mut machine, modified, BASE + 0x6000);
    let [accepted_before, accepted_after] = out_and_in(&mut machine, 7);

    assert_eq!(before, after);
    assert_eq!(after.0.flags, EpcmFlags::VALID | EpcmFlags::MODIFIED);
    assert_eq!(accepted, SgxStatus::Success.rax(), "eviction needs no less tracking");
    assert_eq!(accepted_before, accepted_after);
    assert_eq!(machine.eremove(7), SgxStatus::Success);
}

#[test]
fn restricted_pages_survive_and_are_accepted() {
    let mut machine = with_va();
    modify(&mut machine, leaf::EMODPR, 7, SecInfo::new(SecInfoFlags::R, PageType::Reg));

    let [before, after] = out_and_in(&mut machine, 7);
    let restricted = SecInfo::new(SecInfoFlags::R | SecInfoFlags::PR, PageType::Reg);
    let accepted = accept(&mut machine, restricted, BASE + 0x6000);

    assert_eq!(before, after);
    assert_eq!(after.0.flags, EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::PR);
    assert_eq!(accepted, SgxStatus::Success.rax());
}

#[test]
fn a_version_array_survives() {
    let mut machine = with_va();
    machine.encls(leaf::EPA, 3, Machine::window(21), 0).expect("EPA completes");
    machine.platform.page(EpcIndex(21)).store(16, 77);

    let evicted = ewb(&mut machine, 21, 5);
    let loaded = load(&mut machine, leaf::ELDU, 22, 5, 0, 0);

    assert_eq!((evicted, loaded), (Ok(SgxStatus::Success), Ok(SgxStatus::Success)));
    assert!(machine.platform.epcm(EpcIndex(22)).is(PageType::Va));
    assert_eq!(machine.platform.page(EpcIndex(22)).load(16), 77);
}

#[test]
fn an_secs_comes_back_with_its_virtual_children_and_the_context_of_its_new_page() {
    let mut machine = with_va();
    let window = Machine::window;
    Spec::simple().ecreate(&mut machine, 10).expect("ECREATE completes");
    machine.enclv(enclv::leaf::EINCVIRTCHILD, window(10), window(10), 0).expect("completes");
    machine.memory.put(PAGEINFO, &[0xff; 8]);
    machine.enclv(enclv::leaf::ESETCONTEXT, 0, window(10), PAGEINFO).expect("completes");
    let context = core::mem::offset_of!(Secs, enclavecontext);
    let before = machine.platform.page(EpcIndex(10)).to_bytes();

    let out = ewb(&mut machine, 10, 0);
    let back = load(&mut machine, leaf::ELDU, 11, 0, 0, 0);

    let mut after = machine.platform.page(EpcIndex(11)).to_bytes();
    assert_eq!((out, back), (Ok(SgxStatus::Success), Ok(SgxStatus::Success)));
    assert_eq!(machine.platform.page(EpcIndex(11)).load(context), 11);
    after[context..context + 8].fill(0xff);
    assert_eq!(after, before);
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

    assert_eq!(secs, SgxStatus::Success);
    assert_eq!(back, Ok(SgxStatus::Success));
    assert_eq!(statuses, vec![Ok(SgxStatus::Success); 8]);
    assert!(machine.enclu(user::EENTER, TCS, 0x40_2000, 0).is_ok(), "it still runs");
    assert_eq!(machine.eremove(9), SgxStatus::ChildPresent);
}

#[test]
fn an_enclave_that_is_being_built_goes_out_and_comes_back_between_any_two_leaves() {
    let spec = Spec::simple();
    let mut machine = Machine::with(oversubscribed());
    machine.memory.le_hash = Signer::a().mrsigner();
    add_va(&mut machine);
    let mut secs = 0;
    spec.ecreate(&mut machine, secs).expect("ECREATE completes");
    let mut stored = Vec::new();

    for (number, page) in spec.pages.iter().enumerate() {
        spec.eadd(&mut machine, secs, 2, page).expect("EADD completes");
        for chunk in 0..16 {
            let at = Machine::window(2) + chunk * 256;
            machine.encls(leaf::EEXTEND, Machine::window(secs), at, 0).expect("completes");
        }
        let child = evict_from(&mut machine, secs, 2, number as u64 + 1);
        stored.push((machine.memory.get(EVICTED, 4096), machine.memory.get(PCMD, 128)));
        let parent = ewb(&mut machine, secs, 0);
        assert_eq!((child, parent), (SgxStatus::Success, Ok(SgxStatus::Success)));
        // The SECS moves from page 0 to page 1 and back.
        secs = 1 - secs;
        let back = load(&mut machine, leaf::ELDU, secs, 0, 0, 0);
        assert_eq!(back, Ok(SgxStatus::Success));
    }
    let sigstruct = spec.sigstruct(Signer::a());
    let initialized = spec.einit(&mut machine, secs, &sigstruct, &EinitToken::none());

    assert_eq!(initialized, Ok(SgxStatus::Success), "the measurement is that of `sgxs`");
    for (number, (page, pcmd)) in stored.iter().enumerate() {
        machine.memory.put(EVICTED, page);
        machine.memory.put(PCMD, pcmd);
        let linaddr = BASE + number as u64 * 4096;
        let target = 10 + number as u32;
        let parent = Machine::window(secs);
        let version = number as u64 + 1;
        let loaded = load(&mut machine, leaf::ELDU, target, version, linaddr, parent);
        assert_eq!(loaded, Ok(SgxStatus::Success));
        let index = EpcIndex(target);
        machine.memory.mappings.insert(linaddr, Mapping::Epc { index, writable: true });
    }
    assert!(machine.enclu(user::EENTER, TCS, 0x40_2000, 0).is_ok(), "it runs");
}

#[test]
fn an_enclave_whose_thread_is_inside_loses_other_pages() {
    let mut machine = with_va();
    let mut thread = Machine::on(machine.platform.clone());
    Spec::simple().map(&mut thread, 0);
    machine.status(leaf::EBLOCK, 0, Machine::window(4), 0);
    machine.status(leaf::ETRACK, 0, Machine::window(0), 0);
    thread.enclu(user::EENTER, TCS, 0x40_2000, 0).expect("EENTER completes");

    let evicted = ewb(&mut machine, 4, 0);
    let read = thread.enclu(user::EACCEPT, DATA, DATA, 0);
    let back = load(&mut machine, leaf::ELDU, 4, 0, DATA, Machine::window(0));

    assert_eq!(evicted, Ok(SgxStatus::Success), "it entered after the block");
    assert!(read.is_err_and(|stop| stop != GP), "#PF on the evicted page");
    assert_eq!(back, Ok(SgxStatus::Success));
}
