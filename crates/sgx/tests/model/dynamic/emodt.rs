//! The conditions of EMODT.

use cloister_sgx::encls::leaf;
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType, SgxStatus};
use cloister_x86::PageFaultCode;

use super::emodpr::{SECINFO, addresses, good, pending, secinfo};
use super::secinfo::NONE;
use crate::machine::{GP, Machine, epcm_fault};
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{
    Scenario, TCS_2, THREE, TWO, UNUSED, VA, epc, make_va, map, modify, outside,
};
use crate::unfit::{KernelOperand, uninitialized};

const TARGET: KernelOperand =
    KernelOperand { la: 0xffff_8000_0000_0000 + epc(TWO) as u64 * 4096, part: "page" };
const NOT_MODIFIABLE: Outcome = Ok(SgxStatus::PageNotModifiable as u64);

/// From the first condition to the one on VALID.
fn common() -> Vec<Condition<Scenario>> {
    let mut conditions = addresses();
    conditions.extend([
        secinfo("FLAGS bit 6", 0, &[0x41]),
        secinfo("FLAGS bit 63", 7, &[0x80]),
        secinfo("the last reserved byte", 63, &[1]),
        secinfo("to PT_SECS", 1, &[0]),
        secinfo("to PT_REG", 1, &[2]),
        secinfo("to PT_VA", 1, &[3]),
        secinfo("to PT_SS_FIRST", 1, &[5]),
        secinfo("to PT_SS_REST", 1, &[6]),
        secinfo("to an undefined type", 1, &[7]),
    ]);
    conditions.push(TARGET.replaced("not VALID", UNUSED, |_| {}));
    conditions.push(TARGET.replaced("PT_SECS", 0, |_| {}));
    conditions.push(TARGET.replaced("PT_VA", VA, make_va));
    conditions.push(TARGET.replaced("PT_TRIM, MODIFIED as well", epc(THREE), |machine| {
        modify(machine, leaf::EMODT, epc(THREE), NONE, PageType::Trim);
    }));
    conditions
}

#[test]
fn emodt_to_a_thread_checks_its_conditions_in_order() {
    let mut conditions = common();
    conditions.push(TARGET.replaced("PT_TCS", epc(TCS_2), |_| {}));
    conditions.push(pending());
    conditions.push(uninitialized(Err(GP)));

    let found = violations(
        || good(NONE, PageType::Tcs),
        |scenario| scenario.encls(leaf::EMODT),
        0,
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn emodt_to_a_trimmed_page_checks_its_conditions_in_order() {
    let mut conditions = common();
    conditions.push(pending());
    conditions.push(Condition::new("MODIFIED", "page", NOT_MODIFIABLE, |scenario| {
        let scenario: &mut Scenario = scenario;
        modify(&mut scenario.machine, leaf::EMODT, epc(THREE), NONE, PageType::Tcs);
        map(&mut scenario.machine, TARGET.la, epc(THREE));
    }));
    conditions.push(uninitialized(Err(GP)));

    let found = violations(
        || good(NONE, PageType::Trim),
        |scenario| scenario.encls(leaf::EMODT),
        0,
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn emodt_takes_all_permissions_and_clears_pr() {
    for (from, to) in [(TWO, PageType::Tcs), (TWO, PageType::Trim), (TCS_2, PageType::Trim)] {
        let mut machine = outside(AttributeFlags::empty());
        modify(&mut machine, leaf::EMODPR, epc(TWO), NONE, PageType::Reg);

        let status = modify(&mut machine, leaf::EMODT, epc(from), NONE, to);

        let view = machine.platform.epcm(EpcIndex(epc(from)));
        assert_eq!(status, SgxStatus::Success);
        assert_eq!(view.flags, EpcmFlags::VALID | EpcmFlags::MODIFIED);
        assert_eq!(view.page_type, to);
    }
}

#[test]
fn a_thread_becomes_nothing_but_a_trimmed_page() {
    let mut machine = outside(AttributeFlags::empty());
    let page = Machine::window(epc(TCS_2));
    machine.memory.put(SECINFO, &[0, 1]);

    let outcome = machine.encls(leaf::EMODT, SECINFO, page, 0);

    assert_eq!(outcome, Err(epcm_fault(page, PageFaultCode::WRITE)));
}
