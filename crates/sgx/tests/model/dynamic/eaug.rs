//! The conditions of EAUG.

use cloister_sgx::encls::leaf;
use cloister_sgx::layout::{PageInfo, SecInfo, SecInfoFlags};
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType, Stop};
use cloister_x86::{Exception, PageFaultCode};

use crate::enclave::{BASE, PAGEINFO, SECINFO};
use crate::machine::{GP, Machine, epcm_fault};
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{END, FOUR, Scenario, UNUSED, VA, epc, make_va, map, outside};
use crate::unfit::{KernelOperand, uninitialized};

const NEW: u64 = FOUR + 0x1000;
const PAGE: u32 = 30;
/// The page, in the kernel's window.
const TARGET: KernelOperand = KernelOperand { la: 0xffff_8000_0000_0000 + 30 * 4096, part: "page" };
/// The SECS, in EPC page 0.
const SECS: KernelOperand = KernelOperand { la: 0xffff_8000_0000_0000, part: "SECS page" };
const W: PageFaultCode = PageFaultCode::WRITE;

/// Offsets of the fields of PAGEINFO.
const LINADDR: u64 = 0;
const SRCPGE: u64 = 8;
const SECINFO_FIELD: u64 = 16;
const SECS_FIELD: u64 = 24;

fn good() -> Scenario {
    let mut machine = outside(AttributeFlags::empty());
    let pageinfo = PageInfo { linaddr: NEW.into(), secs: SECS.la.into(), ..PageInfo::default() };
    machine.operand(PAGEINFO, &pageinfo);
    Scenario { machine, rbx: PAGEINFO, rcx: TARGET.la, rdx: 0 }
}

fn field(name: &'static str, at: u64, value: u64, outcome: Outcome) -> Condition<Scenario> {
    Condition::new(
        name,
        ["LINADDR", "SRCPGE", "SECINFO", "SECS"][at as usize / 8],
        outcome,
        move |scenario: &mut Scenario| {
            scenario.machine.memory.put(PAGEINFO + at, &value.to_le_bytes());
        },
    )
}

/// A SECINFO is given.
fn secinfo(flags: SecInfoFlags, page_type: PageType, reserved: u8) -> Condition<Scenario> {
    let name = format!("SECINFO {flags:?} {page_type:?} {reserved}");
    Condition::new(name, "SECINFO", Err(GP), move |scenario: &mut Scenario| {
        let mut secinfo = SecInfo::new(flags, page_type);
        secinfo.reserved[0] = reserved;
        // Not in the page of PAGEINFO, which other conditions take away.
        scenario.machine.operand(SECINFO, &secinfo);
        scenario.machine.memory.put(PAGEINFO + SECINFO_FIELD, &SECINFO.to_le_bytes());
    })
}

fn conditions() -> Vec<Condition<Scenario>> {
    let rw = SecInfoFlags::R | SecInfoFlags::W;
    let register =
        |name, part, change: fn(&mut Scenario)| Condition::new(name, part, Err(GP), change);
    let mut conditions = vec![
        register("RBX not aligned", "RBX", |scenario| scenario.rbx |= 8),
        register("RBX not canonical", "RBX", |scenario| scenario.rbx = 1 << 47),
        register("RCX not aligned", "RCX", |scenario| scenario.rcx |= 0x800),
        register("RCX not canonical", "RCX", |scenario| scenario.rcx = 1 << 47),
    ];
    conditions.extend(TARGET.unresolved());
    let unmapped = Err(Stop::Fault(Exception::pf(0x20_0000, PageFaultCode::empty())));
    conditions.push(Condition::new("PAGEINFO not mapped", "RBX", unmapped, |scenario| {
        let scenario: &mut Scenario = scenario;
        scenario.rbx = 0x20_0000;
    }));
    conditions.extend([
        field("SECINFO not aligned", SECINFO_FIELD, SECINFO + 8, Err(GP)),
        field("SECS not aligned", SECS_FIELD, SECS.la + 0x800, Err(GP)),
        field("LINADDR not aligned", LINADDR, NEW + 0x10, Err(GP)),
        field("SRCPGE", SRCPGE, 0x1000, Err(GP)),
    ]);
    conditions.extend(SECS.unresolved());
    conditions.push(TARGET.replaced("VALID", epc(FOUR), |_| {}));
    let missing = Err(Stop::Fault(Exception::pf(0x30_0000, PageFaultCode::empty())));
    conditions.push(field("SECINFO not mapped", SECINFO_FIELD, 0x30_0000, missing));
    conditions.extend([
        secinfo(rw, PageType::SsFirst, 1),
        secinfo(rw, PageType::SsFirst, 0),
        secinfo(rw, PageType::SsRest, 0),
        secinfo(rw, PageType::Reg, 0),
        secinfo(rw, PageType::Tcs, 0),
    ]);
    conditions.push(SECS.replaced("not VALID", UNUSED, |_| {}));
    conditions.push(SECS.replaced("PT_REG", epc(FOUR), |_| {}));
    conditions.push(SECS.replaced("PT_VA", VA, make_va));
    conditions.push(uninitialized(Err(GP)));
    conditions.extend([
        field("LINADDR below ELRANGE", LINADDR, BASE - 0x1000, Err(GP)),
        field("LINADDR above ELRANGE", LINADDR, END, Err(GP)),
        field("LINADDR not canonical", LINADDR, 1 << 47, Err(GP)),
    ]);
    conditions
}

#[test]
fn eaug_checks_its_conditions_in_order() {
    let found = violations(good, |scenario| scenario.encls(leaf::EAUG), 0, &conditions());

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn eaug_takes_both_ends_of_elrange() {
    for linaddr in [BASE, END - 0x1000] {
        let mut scenario = good();
        scenario.machine.memory.put(PAGEINFO, &linaddr.to_le_bytes());

        let outcome = scenario.encls(leaf::EAUG);

        let view = scenario.machine.platform.epcm(EpcIndex(PAGE));
        assert_eq!(outcome, Ok(0));
        assert_eq!(
            (view.address, view.secs, view.page_type),
            (linaddr, EpcIndex(0), PageType::Reg)
        );
    }
}

#[test]
fn an_added_page_is_cleared_pending_and_a_child_of_its_secs() {
    let mut scenario = good();
    scenario.machine.platform.page(EpcIndex(PAGE)).write(0, &[0xee; 4096]);

    let outcome = scenario.encls(leaf::EAUG);
    for page in 1..=epc(FOUR) {
        scenario.machine.eremove(page);
    }
    let with_child = scenario.machine.eremove(0);
    scenario.machine.eremove(PAGE);
    let without = scenario.machine.eremove(0);

    let rw = EpcmFlags::R | EpcmFlags::W;
    assert_eq!(outcome, Ok(0));
    assert_eq!(scenario.machine.platform.page(EpcIndex(PAGE)).to_bytes(), [0; 4096]);
    assert_eq!(with_child, cloister_sgx::SgxStatus::ChildPresent);
    assert_eq!(without, cloister_sgx::SgxStatus::Success);
    let mut again = good();
    again.encls(leaf::EAUG).expect("EAUG completes");
    let flags = again.machine.platform.epcm(EpcIndex(PAGE)).flags;
    assert_eq!(flags, EpcmFlags::VALID | EpcmFlags::PENDING | rw);
}

#[test]
fn a_page_cannot_be_its_own_secs() {
    let mut scenario = good();
    map(&mut scenario.machine, SECS.la, PAGE);

    assert_eq!(scenario.encls(leaf::EAUG), Err(GP), "the page is locked");
    let secs = Machine::window(0);
    scenario.rcx = secs;
    map(&mut scenario.machine, secs, 0);
    assert_eq!(scenario.encls(leaf::EAUG), Err(epcm_fault(secs, W)), "the page is VALID");
}
