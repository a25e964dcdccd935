//! The conditions of EDECCSSA.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, SgxStatus, Stepping};

use super::thread::{field, frame, frame_in_a_thread, ready, tcs};
use crate::machine::GP;
use crate::order::violations;
use crate::scenario::{AEP, SSA, Scenario, TCS, enter, epc};

const RIP: usize = 4096 - 184 + 136;

/// A handler in frame 1 of a thread that an interrupt took out.
fn handler() -> Scenario {
    let mut scenario = ready(AttributeFlags::empty());
    enter(&mut scenario.machine);
    scenario.machine.xsave.image_mut(3).fill(0);
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
    enter(&mut scenario.machine);
    scenario
}

#[test]
fn edeccssa_checks_its_conditions_in_order() {
    let mut conditions = vec![field("CSSA = 0", tcs::CSSA_NSSA, 2 << 32, Err(GP))];
    conditions.extend(frame(SSA));
    conditions.push(frame_in_a_thread(0));

    let found = violations(
        handler,
        |scenario| scenario.enclu(user::EDECCSSA),
        u64::from(user::EDECCSSA),
        &conditions,
    );

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn edeccssa_moves_the_thread_one_frame_down() {
    let mut scenario = handler();
    let before = scenario.machine.cpu;
    let tcs_page = EpcIndex(epc(TCS));

    let outcome = scenario.machine.enclu(user::EDECCSSA, 1, 2, 3).expect("EDECCSSA completes");
    let cssa = scenario.machine.platform.page(tcs_page).load(tcs::CSSA_NSSA);
    let after = scenario.machine.cpu;
    scenario.machine.cpu.rip = 0x1234;
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");

    assert_eq!(cssa, 2 << 32);
    assert_eq!((outcome.flush, outcome.xrstor, outcome.stepping), (false, None, Stepping::Usual));
    assert_eq!((after.rip, after.rflags, after.fs), (before.rip, before.rflags, before.fs));
    let page = scenario.machine.platform.page(EpcIndex(epc(SSA + 0x1000)));
    assert_eq!(page.load(RIP), 0x1234, "the AEX uses frame 0");
    assert_eq!(scenario.machine.platform.page(tcs_page).load(tcs::CSSA_NSSA), 2 << 32 | 1);
}

#[test]
fn an_edeccssa_that_fails_leaves_the_frame() {
    let mut scenario = handler();
    scenario.machine.memory.mappings.remove(&SSA);

    let outcome = scenario.enclu(user::EDECCSSA);
    scenario.machine.cpu.rip = 0x1234;
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");

    assert!(outcome.is_err());
    let page = scenario.machine.platform.page(EpcIndex(epc(SSA + 0x3000)));
    assert_eq!(page.load(RIP), 0x1234, "the AEX uses frame 1");
}

#[test]
fn edeccssa_needs_its_announcement() {
    let mut machine = crate::enclave::started();
    machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    machine.platform.page(EpcIndex(1)).store(tcs::CSSA_NSSA, 2 << 32 | 1);

    let outcome = machine.enclu(user::EDECCSSA, 0, 0, 0);

    assert_eq!(outcome, Err(GP));
    assert_eq!(machine.eremove(4), SgxStatus::EnclaveAct);
}
