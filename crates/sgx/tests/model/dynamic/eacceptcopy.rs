//! The conditions of EACCEPTCOPY.

use cloister_sgx::encls::leaf;
use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType, SgxStatus};

use super::secinfo::{NONE, R, RW, SECINFO, W, X, put, request, reserved};
use crate::machine::{GP, Machine};
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{
    FOUR, Scenario, TCS_2, THREE, TWO, UNUSED, VA, eaug, epc, make_va, map, modify,
};
use crate::unfit::{Operand, Register};

/// The pending page.
const NEW: u64 = FOUR + 0x1000;
const TARGET: Operand = Operand { register: Register::Rcx, la: NEW, write: true };
const SOURCE: Operand = Operand { register: Register::Rdx, la: TWO, write: false };
const MISMATCH: Outcome = Ok(SgxStatus::PageAttributesMismatch as u64);

fn good() -> Scenario {
    let mut scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, NEW, TWO);
    eaug(&mut scenario.machine, epc(NEW), NEW).expect("EAUG completes");
    map(&mut scenario.machine, NEW, epc(NEW));
    scenario.machine.platform.page(EpcIndex(epc(TWO))).write(0, &[0x5a; 4096]);
    put(&scenario, R | X, PageType::Reg);
    scenario
}

/// The page tables lead RCX to EPC page `page`, which is not a page to fill.
fn mismatch(
    name: &'static str,
    page: u32,
    prepare: impl Fn(&mut Machine) + 'static,
) -> Condition<Scenario> {
    Condition::new(name, "RCX page", MISMATCH, move |scenario: &mut Scenario| {
        prepare(&mut scenario.machine);
        map(&mut scenario.machine, NEW, page);
    })
}

fn mismatches() -> Vec<Condition<Scenario>> {
    vec![
        mismatch("not VALID", UNUSED, |_| {}),
        mismatch("not PENDING", epc(FOUR), |_| {}),
        mismatch("MODIFIED", epc(THREE), |machine| {
            modify(machine, leaf::EMODT, epc(THREE), NONE, PageType::Trim);
        }),
        mismatch("BLOCKED", epc(NEW), |machine| {
            machine.status(leaf::EBLOCK, 0, Machine::window(epc(NEW)), 0);
        }),
        mismatch("PT_TCS", epc(TCS_2), |_| {}),
        mismatch("PT_SECS", 0, |_| {}),
        mismatch("PT_VA", VA, make_va),
        mismatch("a pending page at another address", 30, |machine| {
            eaug(machine, 30, NEW + 0x1000).expect("EAUG completes");
        }),
    ]
}

#[test]
fn eacceptcopy_checks_its_conditions_in_order() {
    let mut conditions = vec![SECINFO.misaligned(), TARGET.misaligned(), SOURCE.misaligned()];
    conditions.extend(SECINFO.outside());
    conditions.extend(TARGET.outside());
    conditions.extend(SOURCE.outside());
    conditions.extend(SECINFO.unresolved());
    conditions.extend(TARGET.unresolved());
    conditions.extend(SOURCE.unresolved());
    conditions.extend(SECINFO.inaccessible());
    conditions.extend(reserved());
    conditions.extend([
        request(W, PageType::Reg, Err(GP)),
        request(W | X, PageType::Reg, Err(GP)),
        request(RW, PageType::Tcs, Err(GP)),
        request(RW, PageType::Trim, Err(GP)),
        request(RW, PageType::SsFirst, Err(GP)),
    ]);
    conditions.extend(SOURCE.inaccessible());
    conditions.extend(mismatches());

    let found = violations(good, |scenario| scenario.enclu(user::EACCEPTCOPY), 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_page_of_another_enclave_is_a_mismatch() {
    let mut scenario = good();
    crate::unfit::Unfit::OtherEnclave.make(&mut scenario.machine, NEW, epc(NEW));

    assert_eq!(scenario.enclu(user::EACCEPTCOPY), MISMATCH);
}

#[test]
fn eacceptcopy_gives_contents_and_the_requested_permissions() {
    let run = |flags| {
        let mut scenario = good();
        put(&scenario, flags, PageType::Reg);
        let outcome = scenario.enclu(user::EACCEPTCOPY);
        let page = EpcIndex(epc(NEW));
        let contents = scenario.machine.platform.page(page).to_bytes();
        (outcome, contents == [0x5a; 4096], scenario.machine.platform.epcm(page).flags)
    };

    assert_eq!(run(NONE), (Ok(0), true, EpcmFlags::VALID));
    assert_eq!(run(R), (Ok(0), true, EpcmFlags::VALID | EpcmFlags::R));
    let all = EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::W | EpcmFlags::X;
    assert_eq!(run(RW | X), (Ok(0), true, all));
}

#[test]
fn a_mismatch_copies_nothing() {
    let mut scenario = good();
    let blocked = mismatches().swap_remove(3);
    (blocked.spoil)(&mut scenario);

    let outcome = scenario.enclu(user::EACCEPTCOPY);

    assert_eq!(outcome, MISMATCH);
    assert_eq!(scenario.machine.cpu.rflags & 0x8d5, 0x40, "ZF alone");
    assert_eq!(scenario.machine.platform.page(EpcIndex(epc(NEW))).to_bytes(), [0; 4096]);
}

#[test]
fn a_pending_page_is_readable_and_writable_whatever_is_tried() {
    let mut scenario = good();
    let page = epc(NEW);

    let restricted = modify(&mut scenario.machine, leaf::EMODPR, page, R, PageType::Reg);
    put(&scenario, X, PageType::Reg);
    let extended = scenario.enclu(user::EMODPE);

    assert_eq!(restricted, SgxStatus::PageNotModifiable);
    assert!(extended.is_err());
    let expected = EpcmFlags::VALID | EpcmFlags::PENDING | EpcmFlags::R | EpcmFlags::W;
    assert_eq!(scenario.machine.platform.epcm(EpcIndex(page)).flags, expected);
}
