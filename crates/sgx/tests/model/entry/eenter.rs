//! The conditions of EENTER in 64-bit mode.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex};
use cloister_x86::Gpr;

use super::thread::{ENTRY, common, field, frame, frame_in_a_thread, ready, tcs};
use crate::machine::GP;
use crate::order::violations;
use crate::scenario::{SSA, TCS, epc};

fn run(scenario: &mut crate::scenario::Scenario) -> crate::order::Outcome {
    let before = scenario.machine.platform.page(EpcIndex(epc(TCS))).load(tcs::STATE);
    let outcome = scenario.enclu(user::EENTER);
    let after = scenario.machine.platform.page(EpcIndex(epc(TCS))).load(tcs::STATE);
    assert!(outcome.is_ok() || after == before, "TCS.STATE is left alone");
    outcome
}

#[test]
fn eenter_checks_its_conditions_in_order() {
    let mut conditions = common();
    conditions.push(field("CSSA = NSSA", tcs::CSSA_NSSA, 2 << 32 | 2, Err(GP)));
    conditions.push(field("CSSA beyond NSSA", tcs::CSSA_NSSA, 2 << 32 | 0xffff_ffff, Err(GP)));
    conditions.extend(frame(SSA));
    conditions.push(frame_in_a_thread(0));
    conditions.extend([
        field("OENTRY not canonical", tcs::OENTRY, 1 << 47, Err(GP)),
        field("OFSBASE not canonical", tcs::OFSBASE, 1 << 47, Err(GP)),
        field("OGSBASE not canonical", tcs::OGSBASE, 1 << 47, Err(GP)),
        field("STATE", tcs::STATE, 1, Err(GP)),
    ]);

    let found = violations(|| ready(AttributeFlags::empty()), run, 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn aexnotify_may_differ_on_an_opt_in_entry() {
    let run = |attributes, flags| {
        let mut scenario = ready(attributes);
        scenario.machine.platform.page(EpcIndex(epc(TCS))).store(tcs::FLAGS, flags);
        scenario.enclu(user::EENTER)
    };
    let (with, without) = (AttributeFlags::AEXNOTIFY, AttributeFlags::empty());

    assert_eq!([run(with, 0), run(with, 1), run(with, 2)], [Err(GP), Ok(0), Ok(0)]);
    assert_eq!([run(without, 2), run(without, 3), run(without, 0)], [Err(GP), Ok(0), Ok(0)]);
}

#[test]
fn xfrm_3_will_do_without_xsave_and_7_needs_it() {
    let run = |xfrm, osxsave, xcr0| {
        let mut scenario = ready(AttributeFlags::empty());
        scenario.machine.platform.page(EpcIndex(0)).store(56, xfrm);
        scenario.machine.cpu.osxsave = osxsave;
        scenario.machine.cpu.xcr0 = xcr0;
        let outcome = scenario.enclu(user::EENTER);
        (outcome, scenario.machine.cpu.xcr0)
    };

    assert_eq!(run(3, true, 7), (Ok(0), 3));
    assert_eq!(run(3, true, 3), (Ok(0), 3));
    assert_eq!(run(7, true, 7), (Ok(0), 7));
    assert_eq!(run(7, true, 3), (Err(GP), 3));
    assert_eq!(run(3, false, 1), (Ok(0), 1));
    assert_eq!(run(7, false, 7), (Err(GP), 7));
}

#[test]
fn each_entry_uses_the_frame_that_cssa_names() {
    let mut scenario = ready(AttributeFlags::empty());
    let tcs_page = EpcIndex(epc(TCS));
    scenario.machine.platform.page(tcs_page).store(tcs::CSSA_NSSA, 2 << 32 | 1);
    scenario.machine.memory.mappings.remove(&SSA);
    scenario.machine.memory.mappings.remove(&(SSA + 0x1000));

    let outcome = scenario.enclu(user::EENTER);

    assert_eq!(outcome, Ok(1), "frame 0 is not looked at");
    assert_eq!(scenario.machine.cpu.gpr[Gpr::Rax], 1);
    assert_eq!(scenario.machine.cpu.rip, ENTRY);
}
