//! RFLAGS.TF and single steps across entry and exit (SDM Vol. 3D, 40.2).

use cloister_sgx::enclu::leaf as user;
use cloister_sgx::{AttributeFlags, EpcIndex, ExitingEvent, Stepping};
use cloister_x86::{Exception, La, Vector};

use super::thread::{ready, tcs};
use crate::scenario::{AEP, Scenario, TCS, epc};

const TF: u64 = 1 << 8;

/// A thread that is entered opted in (FLAGS 1) or out (0) of debugging.
fn thread(flags: u64, tf: bool) -> Scenario {
    let mut scenario = ready(AttributeFlags::empty());
    scenario.machine.platform.page(EpcIndex(epc(TCS))).store(tcs::FLAGS, flags);
    scenario.machine.cpu.rflags = 0x202 | if tf { TF } else { 0 };
    scenario.machine.xsave.image_mut(3).fill(0);
    scenario
}

fn entered(scenario: &mut Scenario) -> (Stepping, bool) {
    let outcome = scenario.machine.enclu(user::EENTER, TCS, AEP, 0).expect("EENTER completes");
    (outcome.stepping, scenario.machine.cpu.rflags & TF != 0)
}

fn left(scenario: &mut Scenario) -> (Stepping, bool) {
    let outcome = scenario.machine.enclu(user::EEXIT, 0x40_3000, 0, 0).expect("EEXIT completes");
    (outcome.stepping, scenario.machine.cpu.rflags & TF != 0)
}

#[test]
fn an_opt_out_entry_masks_tf_until_eexit() {
    for tf in [false, true] {
        let mut scenario = thread(0, tf);

        let inside = entered(&mut scenario);
        let opted_out = scenario.machine.state.debug_opt_out();
        let outside = left(&mut scenario);

        assert_eq!(inside, (Stepping::Suppressed, false));
        assert!(opted_out);
        assert_eq!(outside, (if tf { Stepping::Pending } else { Stepping::Suppressed }, tf));
        assert!(!scenario.machine.state.debug_opt_out(), "outside nothing is suppressed");
    }
}

#[test]
fn an_opt_in_entry_leaves_tf_to_the_enclave() {
    let mut stepped = thread(1, true);
    let mut set_inside = thread(1, false);
    let mut cleared_inside = thread(1, true);

    assert_eq!(entered(&mut stepped), (Stepping::Usual, true));
    assert_eq!(left(&mut stepped), (Stepping::Pending, true));
    assert_eq!(entered(&mut set_inside), (Stepping::Usual, false));
    set_inside.machine.cpu.rflags |= TF;
    assert_eq!(left(&mut set_inside), (Stepping::Pending, true), "TF is not restored");
    entered(&mut cleared_inside);
    cleared_inside.machine.cpu.rflags &= !TF;
    assert_eq!(left(&mut cleared_inside), (Stepping::Suppressed, false));
}

#[test]
fn an_aex_brings_back_the_tf_of_an_opt_out_entry() {
    for tf in [false, true] {
        let mut scenario = thread(0, tf);
        entered(&mut scenario);

        scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
        let outside = scenario.machine.cpu.rflags & TF != 0;
        let resumed = scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("completes");
        let inside = scenario.machine.cpu.rflags & TF != 0;
        let exited = left(&mut scenario);

        assert_eq!(outside, tf);
        assert_eq!((resumed.stepping, inside), (Stepping::Suppressed, false));
        assert_eq!(exited.1, tf, "the TF at the last entry, which was ERESUME");
    }
}

#[test]
fn an_aex_leaves_tf_alone_after_an_opt_in_entry_and_the_frame_never_has_it() {
    for tf in [false, true] {
        let mut scenario = thread(1, !tf);
        entered(&mut scenario);
        scenario.machine.cpu.rflags = 0x202 | if tf { TF } else { 0 };
        let step = Exception { vector: Vector::Db, error_code: 0, address: 0 };

        scenario.machine.aex(ExitingEvent::Exception(step)).expect("inside");
        let outside = scenario.machine.cpu.rflags & TF != 0;
        let frame = scenario.machine.platform.page(EpcIndex(epc(TCS) + 5));
        let saved = frame.load(4096 - 184 + 128) & TF;
        let resumed = scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("completes");

        assert_eq!((outside, saved), (tf, 0));
        assert_eq!(resumed.stepping, Stepping::Suppressed, "no step at the end of ERESUME");
        assert_eq!(scenario.machine.cpu.rflags & TF != 0, tf, "the enclave goes on stepping");
    }
}

#[test]
fn an_opt_in_notification_steps_as_eenter_does() {
    let mut scenario = thread(3, true);
    entered(&mut scenario);
    scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
    let frame = scenario.machine.platform.page(EpcIndex(epc(TCS) + 5));
    frame.write(4096 - 184 + 167, &[1]);

    let resumed = scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("completes");

    assert_eq!(resumed.stepping, Stepping::Usual);
    assert_eq!(scenario.machine.cpu.rflags & TF, TF);
}

#[test]
fn rf_is_saved_as_it_would_be_pushed_and_comes_back() {
    const RF: u64 = 1 << 16;
    for rf in [0, RF] {
        let mut scenario = thread(0, false);
        entered(&mut scenario);
        scenario.machine.cpu.rflags |= rf;

        scenario.machine.aex(ExitingEvent::Interrupt).expect("inside");
        let outside = scenario.machine.cpu.rflags & RF;
        let frame = scenario.machine.platform.page(EpcIndex(epc(TCS) + 5));
        let saved = frame.load(4096 - 184 + 128) & RF;
        scenario.machine.enclu(user::ERESUME, TCS, AEP, 0).expect("ERESUME completes");

        assert_eq!((outside, saved), (0, rf));
        assert_eq!(scenario.machine.cpu.rflags & RF, rf);
    }
}

#[test]
fn elrange_says_which_breakpoints_an_opt_out_entry_suppresses() {
    let mut scenario = thread(0, false);
    let before = scenario.machine.state.elrange();
    entered(&mut scenario);

    assert_eq!(before, None);
    assert_eq!(scenario.machine.state.elrange(), Some((La(TCS), 0x2_0000)));
    assert!(scenario.machine.state.in_elrange(La(TCS)));
    assert!(scenario.machine.state.in_elrange(La(TCS + 0x1_ffff)));
    assert!(!scenario.machine.state.in_elrange(La(TCS + 0x2_0000)));
    assert!(!scenario.machine.state.in_elrange(La(TCS - 1)));
}
