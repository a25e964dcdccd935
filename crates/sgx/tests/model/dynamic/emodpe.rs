//! The conditions of EMODPE.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, EpcmFlags, PageType};

use super::secinfo::{FLAGS, NONE, R, RW, SECINFO, W, X, put, reserved};
use crate::machine::GP;
use crate::order::{Condition, violations};
use crate::scenario::{Scenario, TWO, epc};
use crate::unfit::{Operand, Register, Unfit};

const TARGET: Operand = Operand { register: Register::Rcx, la: TWO, write: false };

fn good() -> Scenario {
    let scenario = Scenario::inside(AttributeFlags::empty(), SECINFO.la, TWO, 0);
    put(&scenario, RW | X, PageType::Reg);
    scenario
}

#[test]
fn emodpe_checks_its_conditions_in_order() {
    let mut conditions = vec![SECINFO.misaligned(), TARGET.misaligned()];
    conditions.extend(SECINFO.outside());
    conditions.extend(TARGET.outside());
    conditions.extend(SECINFO.unresolved());
    conditions.extend(TARGET.unresolved());
    conditions.extend(SECINFO.inaccessible());
    conditions.extend(reserved());
    // Whether the page may be read makes no difference here.
    conditions.extend(TARGET.inaccessible_without_permission());
    let unreadable = move |scenario: &mut Scenario| {
        Unfit::NoRead.make(&mut scenario.machine, TWO, epc(TWO));
        put(scenario, W, PageType::Reg);
    };
    conditions.push(Condition::new("W without R", "RCX page", Err(GP), unreadable).and(FLAGS));

    let found = violations(
        good,
        |scenario| scenario.enclu(user::EMODPE),
        u64::from(user::EMODPE),
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn emodpe_adds_permissions_and_takes_none() {
    let run = |before, request| {
        let mut scenario = good();
        let machine = &mut scenario.machine;
        let leaf = cloister_sgx::encls::leaf::EMODPR;
        crate::scenario::modify(machine, leaf, epc(TWO), before, PageType::Reg);
        put(&scenario, request, PageType::Reg);
        let outcome = scenario.enclu(user::EMODPE).map(drop);
        outcome.map(|()| scenario.machine.platform.epcm(EpcIndex(epc(TWO))).flags)
    };
    let valid = EpcmFlags::VALID | EpcmFlags::PR;

    assert_eq!(run(R, NONE), Ok(valid | EpcmFlags::R));
    assert_eq!(run(R, W), Ok(valid | EpcmFlags::R | EpcmFlags::W));
    assert_eq!(run(NONE, RW), Ok(valid | EpcmFlags::R | EpcmFlags::W));
    assert_eq!(run(RW, X), Ok(valid | EpcmFlags::R | EpcmFlags::W | EpcmFlags::X));
    assert_eq!(run(NONE, W), Err(GP));
}
