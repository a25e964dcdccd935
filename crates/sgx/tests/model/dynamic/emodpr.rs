//! The conditions of EMODPR.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{SecInfo, SecInfoFlags};
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType, SgxStatus, Stop};
use cloister_x86::{Exception, PageFaultCode};

use super::secinfo::{NONE, R, RW, W, X};
use crate::machine::{GP, Machine};
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{
    FOUR, Scenario, TCS_2, THREE, TWO, UNUSED, VA, eaug, epc, make_va, map, modify, outside,
};
use crate::unfit::{KernelOperand, uninitialized};

/// A SECINFO that lies on a page of its own.
pub(super) const SECINFO: u64 = 0x20_0000;
const TARGET: KernelOperand =
    KernelOperand { la: 0xffff_8000_0000_0000 + epc(TWO) as u64 * 4096, part: "page" };
const NOT_MODIFIABLE: Outcome = Ok(SgxStatus::PageNotModifiable as u64);

/// A processor outside the enclave, about to change page TWO as `flags` and `page_type` say.
pub(super) fn good(flags: SecInfoFlags, page_type: PageType) -> Scenario {
    let mut machine = outside(AttributeFlags::empty());
    machine.operand(SECINFO, &SecInfo::new(flags, page_type));
    Scenario { machine, rbx: SECINFO, rcx: TARGET.la, rdx: 0 }
}

/// The conditions on the operands' addresses.
pub(super) fn addresses() -> Vec<Condition<Scenario>> {
    let register =
        |name, part, change: fn(&mut Scenario)| Condition::new(name, part, Err(GP), change);
    let mut conditions = vec![
        register("RBX not aligned", "RBX", |scenario| scenario.rbx |= 8),
        register("RBX not canonical", "RBX", |scenario| scenario.rbx = 1 << 47),
        register("RCX not aligned", "RCX", |scenario| scenario.rcx |= 0x800),
        register("RCX not canonical", "RCX", |scenario| scenario.rcx = 1 << 47),
    ];
    conditions.extend(TARGET.unresolved());
    let unmapped = Err(Stop::Fault(Exception::pf(0x30_0000, PageFaultCode::empty())));
    conditions.push(Condition::new("SECINFO not mapped", "RBX", unmapped, |scenario| {
        let scenario: &mut Scenario = scenario;
        scenario.rbx = 0x30_0000;
    }));
    conditions
}

/// SECINFO bytes that end the leaf with #GP(0).
pub(super) fn secinfo(name: &'static str, at: u64, bytes: &'static [u8]) -> Condition<Scenario> {
    Condition::new(name, "SECINFO", Err(GP), move |scenario: &mut Scenario| {
        scenario.machine.memory.put(SECINFO + at, bytes);
    })
}

/// The page is another one, which ends the leaf with SGX_PAGE_NOT_MODIFIABLE.
pub(super) fn pending() -> Condition<Scenario> {
    Condition::new("PENDING", "page", NOT_MODIFIABLE, |scenario: &mut Scenario| {
        eaug(&mut scenario.machine, 30, FOUR + 0x1000).expect("EAUG completes");
        map(&mut scenario.machine, TARGET.la, 30);
    })
}

#[test]
fn emodpr_checks_its_conditions_in_order() {
    let mut conditions = addresses();
    conditions.extend([
        secinfo("FLAGS bit 6", 0, &[0x41]),
        secinfo("FLAGS bit 63", 7, &[0x80]),
        secinfo("the last reserved byte", 63, &[1]),
        secinfo("W without R", 0, &[2]),
        secinfo("WX without R", 0, &[6]),
    ]);
    conditions.push(TARGET.replaced("not VALID", UNUSED, |_| {}));
    conditions.push(pending());
    conditions.push(Condition::new("MODIFIED", "page", NOT_MODIFIABLE, |scenario| {
        let scenario: &mut Scenario = scenario;
        modify(&mut scenario.machine, leaf::EMODT, epc(THREE), NONE, PageType::Trim);
        map(&mut scenario.machine, TARGET.la, epc(THREE));
    }));
    conditions.push(TARGET.replaced("PT_TCS", epc(TCS_2), |_| {}));
    conditions.push(TARGET.replaced("PT_SECS", 0, |_| {}));
    conditions.push(TARGET.replaced("PT_VA", VA, make_va));
    conditions.push(uninitialized(Err(GP)));

    let found = violations(
        || good(R, PageType::Reg),
        |scenario| scenario.encls(leaf::EMODPR),
        0,
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_changed_page_is_not_modifiable_before_it_is_no_regular_page() {
    let mut scenario = good(R, PageType::Reg);
    modify(&mut scenario.machine, leaf::EMODT, epc(TWO), NONE, PageType::Tcs);

    assert_eq!(scenario.encls(leaf::EMODPR), NOT_MODIFIABLE);
}

#[test]
fn emodpr_takes_permissions_and_adds_none() {
    let run = |request| {
        let mut scenario = good(request, PageType::Reg);
        let outcome = scenario.encls(leaf::EMODPR);
        (outcome, scenario.machine.platform.epcm(EpcIndex(epc(TWO))).flags)
    };
    let valid = EpcmFlags::VALID | EpcmFlags::PR;

    assert_eq!(run(NONE), (Ok(0), valid));
    assert_eq!(run(R), (Ok(0), valid | EpcmFlags::R));
    assert_eq!(run(RW | X), (Ok(0), valid | EpcmFlags::R | EpcmFlags::W));
    assert_eq!(run(X), (Ok(0), valid));
    assert_eq!(run(W), (Err(GP), EpcmFlags::VALID | EpcmFlags::R | EpcmFlags::W));
}

#[test]
fn emodpr_reports_in_rax_and_flags() {
    let mut scenario = good(R, PageType::Reg);
    let page = Machine::window(epc(TWO));

    let done = scenario.machine.encls_registers(leaf::EMODPR, SECINFO, page, 0);
    modify(&mut scenario.machine, leaf::EMODT, epc(TWO), NONE, PageType::Trim);
    let refused = scenario.machine.encls_registers(leaf::EMODPR, SECINFO, page, 0);

    let done = done.expect("EMODPR completes");
    let refused = refused.expect("EMODPR completes");
    assert_eq!((done.rax, done.rflags), (0, 2));
    assert_eq!((refused.rax, refused.rflags), (20, 0x42), "ZF alone");
}
