//! The conditions of ERESUME in 64-bit mode.

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, Stepping};
use cloister_x86::Gpr;

use super::thread::{ENTRY, common, field, frame, frame_in_a_thread, ready, tcs};
use crate::machine::GP;
use crate::order::{Condition, Outcome, violations};
use crate::scenario::{AEP, CODE, SSA, Scenario, TCS, enter, epc};

const GPRSGX: usize = 4096 - 184;
const RIP: usize = GPRSGX + 136;
const URSP: usize = GPRSGX + 144;
const AEXNOTIFY: usize = GPRSGX + 167;
const FSBASE: usize = GPRSGX + 168;
const GSBASE: usize = GPRSGX + 176;

/// A thread that an interrupt took out, and whether it asked to be notified.
fn interrupted(flags: AttributeFlags, notify: bool) -> Scenario {
    let mut scenario = ready(flags);
    if flags.contains(AttributeFlags::AEXNOTIFY) {
        scenario.machine.platform.page(EpcIndex(epc(TCS))).store(tcs::FLAGS, 2);
    }
    enter(&mut scenario.machine);
    scenario.machine.cpu.rip = CODE + 0x100;
    scenario.machine.xsave.image_mut(3).fill(0);
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
    frame_page(&scenario, 1).write(AEXNOTIFY, &[u8::from(notify)]);
    scenario
}

/// A page of frame 0: that of the XSAVE area, or that of the GPRSGX region.
fn frame_page(scenario: &Scenario, page: u64) -> cloister_sgx::EpcPage<'_> {
    scenario.machine.platform.page(EpcIndex(epc(SSA + page * 0x1000)))
}

fn saved(name: &'static str, at: usize, value: u64) -> Condition<Scenario> {
    Condition::new(name, "GPRSGX", Err(GP), move |scenario: &mut Scenario| {
        frame_page(scenario, 1).store(at, value);
    })
    .and("GPRSGX page")
}

fn image(name: &'static str, at: usize, value: u64) -> Condition<Scenario> {
    Condition::new(name, "XSAVE area", Err(GP), move |scenario: &mut Scenario| {
        frame_page(scenario, 0).store(at, value);
    })
    .and("XSAVE page")
}

/// ERESUME, with the resumed RAX (or CSSA) left out.
fn run(scenario: &mut Scenario) -> Outcome {
    let before = scenario.machine.platform.page(EpcIndex(epc(TCS))).load(tcs::STATE);
    let outcome = scenario.enclu(user::ERESUME).map(|_| 0);
    let after = scenario.machine.platform.page(EpcIndex(epc(TCS))).load(tcs::STATE);
    assert!(outcome.is_ok() || after == before, "TCS.STATE is left alone");
    outcome
}

#[test]
fn eresume_checks_its_conditions_in_order() {
    let mut conditions = common();
    conditions.push(field("CSSA = 0", tcs::CSSA_NSSA, 2 << 32, Err(GP)));
    conditions.extend(frame(SSA));
    conditions.push(frame_in_a_thread(0).and("GPRSGX page"));
    conditions.extend([
        saved("RIP not canonical", RIP, 1 << 47),
        saved("FSBASE not canonical", FSBASE, 1 << 47),
        saved("GSBASE not canonical", GSBASE, 1 << 47),
        field("STATE", tcs::STATE, 1, Err(GP)),
        image("XSTATE_BV beyond XFRM", 512, 7),
        image("XCOMP_BV", 520, 1),
        image("the header's reserved bytes", 528, 1 << 63),
        image("a reserved bit of MXCSR", 24, 1 << 16),
    ]);

    let found = violations(|| interrupted(AttributeFlags::empty(), false), run, 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_notifying_eresume_checks_its_conditions_in_order() {
    let notified = || interrupted(AttributeFlags::AEXNOTIFY, true);
    let mut conditions = frame(SSA);
    conditions.push(field("no further frame", tcs::CSSA_NSSA, 1 << 32 | 1, Err(GP)));
    // The parts of the second frame are not those of the first one.
    conditions.extend(frame(SSA + 0x2000).into_iter().map(|condition| condition.renamed("second")));
    conditions.extend([
        field("OENTRY not canonical", tcs::OENTRY, 1 << 47, Err(GP)),
        field("OFSBASE not canonical", tcs::OFSBASE, 1 << 47, Err(GP)),
        field("OGSBASE not canonical", tcs::OGSBASE, 1 << 47, Err(GP)),
        field("STATE", tcs::STATE, 1, Err(GP)),
    ]);

    let found = violations(notified, run, 0, &conditions);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_notification_looks_at_nothing_that_it_does_not_load() {
    for (page, at, value) in
        [(1, RIP, 1 << 47), (1, FSBASE, 1 << 47), (1, GSBASE, 1 << 47), (0, 512, 7), (0, 520, 1)]
    {
        let mut scenario = interrupted(AttributeFlags::AEXNOTIFY, true);
        frame_page(&scenario, page).store(at, value);

        assert_eq!(run(&mut scenario), Ok(0), "{at}");
    }
}

#[test]
fn a_notification_enters_as_eenter_does() {
    let mut scenario = interrupted(AttributeFlags::AEXNOTIFY, true);
    scenario.machine.cpu.gpr[Gpr::Rsp] = 0x7ffe_1000;
    scenario.machine.cpu.gpr[Gpr::Rbp] = 0x7ffe_2000;
    scenario.machine.cpu.rflags = 0x202 | 0x8d5;

    let outcome = scenario.machine.enclu(user::ERESUME, TCS, AEP + 4, 0).expect("completes");

    let cpu = &scenario.machine.cpu;
    assert_eq!(
        (outcome.flush, outcome.xrstor, outcome.stepping),
        (true, None, Stepping::Suppressed)
    );
    assert_eq!(cpu.rip, ENTRY);
    assert_eq!(
        (cpu.gpr[Gpr::Rax], cpu.gpr[Gpr::Rcx]),
        (1, ENTRY),
        "CSSA, and RIP as it was replaced"
    );
    assert_eq!((cpu.gpr[Gpr::Rsp], cpu.gpr[Gpr::Rbp]), (0x7ffe_1000, 0x7ffe_2000));
    assert_eq!(cpu.rflags, 0x202 | 0x8d5, "no flags are restored");
    assert_eq!((cpu.fs.base, cpu.gs.base), (TCS, TCS), "OFSBASE and OGSBASE");
    assert_eq!(cpu.xcr0, 3);
    let second = scenario.machine.platform.page(EpcIndex(epc(SSA + 0x3000)));
    assert_eq!((second.load(URSP), second.load(URSP + 8)), (0x7ffe_1000, 0x7ffe_2000));
    let page = scenario.machine.platform.page(EpcIndex(epc(TCS)));
    assert_eq!(page.load(tcs::CSSA_NSSA), 2 << 32 | 1, "no frame is popped");
    assert_eq!((page.load(40), page.load(tcs::STATE)), (AEP + 4, 1));
}

#[test]
fn notification_needs_the_thread_and_bit_0_of_the_frame() {
    let resumed_at = |flags, tcs_flags: u64, byte: u8| {
        let mut scenario = interrupted(flags, false);
        scenario.machine.platform.page(EpcIndex(epc(TCS))).store(tcs::FLAGS, tcs_flags);
        frame_page(&scenario, 1).write(AEXNOTIFY, &[byte]);
        run(&mut scenario).map(|_| scenario.machine.cpu.rip)
    };
    let with = AttributeFlags::AEXNOTIFY;

    assert_eq!(resumed_at(with, 2, 1), Ok(ENTRY));
    assert_eq!(resumed_at(with, 2, 0xff), Ok(ENTRY));
    assert_eq!(resumed_at(with, 2, 0xfe), Ok(CODE + 0x100));
    assert_eq!(resumed_at(with, 2, 0), Ok(CODE + 0x100));
    assert_eq!(resumed_at(with, 1, 1), Ok(CODE + 0x100), "DBGOPTIN in place of AEXNOTIFY");
    assert_eq!(resumed_at(AttributeFlags::empty(), 3, 1), Ok(ENTRY), "opted in");
    assert_eq!(resumed_at(AttributeFlags::empty(), 0, 1), Ok(CODE + 0x100));
}

#[test]
fn without_announcement_aexnotify_is_a_reserved_bit() {
    let mut machine = crate::enclave::started();
    machine.platform.page(EpcIndex(1)).store(tcs::FLAGS, 3);

    assert_eq!(machine.enclu(user::EENTER, TCS, AEP, 0).map(drop), Err(GP));
}

#[test]
fn a_thread_without_frames_in_use_cannot_be_resumed() {
    let mut scenario = ready(AttributeFlags::empty());

    assert_eq!(run(&mut scenario), Err(GP));
}
