//! The same guests on the host's KVM, where it has one: also one that emulates ring 0, as a sandbox's.

use std::thread;
use std::time::Duration;

use cloister_vmm::accel::{DebugPoints, DebugStop, KvmHost, Watchpoint};
use cloister_vmm::machine::{AskError, Control, Outcome};
use cloister_x86::Gpr;

use crate::guests::{CLOCK, CONTENDING, DOTS, IDLE, POWERS_OFF, RESETS};
use crate::machine::{PATIENCE, Running};

/// The options of a machine under KVM; `None`, and why, where the host has none.
fn kvm() -> Option<[&'static str; 2]> {
    match KvmHost::open() {
        Ok(_) => Some(["--accel", "kvm"]),
        Err(error) => {
            skipped(&error.to_string());
            None
        }
    }
}

/// Says why a test cannot run here.
fn skipped(why: &str) {
    use std::io::Write as _;
    // Not captured, unlike what is printed.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A machine under KVM that runs `code`.
fn start(code: &[u8], options: &[&str]) -> Option<Running> {
    Some(Running::start(code, &[&kvm()?, options].concat()))
}

#[test]
fn a_guest_prints_stops_goes_on_and_is_reset() {
    let Some(running) = start(DOTS, &["--cpus", "3"]) else { return };
    running.screen.wait_for_more();
    for _ in 0..20 {
        running.control.stop();
        let printed = running.screen.len();
        thread::sleep(Duration::from_millis(5));
        assert_eq!(running.screen.len(), printed);
        running.control.resume().unwrap();
        running.screen.wait_for_more();
    }
    for _ in 0..5 {
        running.control.reset();
        running.screen.wait_for_more();
    }
    running.control.quit();
    assert_eq!(running.outcome(), Outcome::Quit);
}

#[test]
fn a_guest_ends_the_machine_by_its_own_means() {
    // lidt [0]: no gate is present there; xor ecx, ecx; div ecx.
    let faults: &[u8] = &[0x0f, 0x01, 0x1d, 0x00, 0x00, 0x00, 0x00, 0x31, 0xc9, 0xf7, 0xf1];
    // ICR: INIT to itself.
    let init: &[u8] = &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x04, 0x00];
    for (code, outcome) in [
        (POWERS_OFF, Outcome::PowerOff),
        (RESETS, Outcome::Reset),
        (faults, Outcome::TripleFault),
        (init, Outcome::Reset),
    ] {
        let Some(running) = start(code, &["--no-reboot"]) else { return };
        assert_eq!(running.outcome(), outcome, "{code:x?}");
    }
}

#[test]
fn halted_processors_and_those_that_wait_for_a_start_up_ipi_end_at_once() {
    let Some(running) = start(IDLE, &["--cpus", "4"]) else { return };
    for _ in 0..50 {
        running.control.stop();
        running.control.resume().unwrap();
    }
    running.control.quit();
    assert_eq!(running.outcome(), Outcome::Quit);
}

#[test]
fn a_start_up_ipi_starts_the_second_processor() {
    let Some(running) = start(CONTENDING, &["--cpus", "2"]) else { return };
    running.screen.wait_for_more();

    let rips = running.control.ask(0..2, |vcpu| vcpu.state().unwrap().rip).unwrap();

    assert!((0x10_0000..0x10_0100).contains(&rips[0]), "{rips:x?}");
    // It may not have begun.
    assert!(rips[1] < 0x10 || rips[1] == 0xfff0, "{rips:x?}");
}

#[test]
fn no_time_passes_for_a_stopped_guest() {
    const STOPPED: Duration = Duration::from_secs(2);
    let Some(running) = start(CLOCK, &[]) else { return };
    if !KvmHost::is_hardware() {
        skipped("this KVM does not stop the counter, which the processor reads to the guest");
        return;
    }
    running.screen.wait_for_more();

    running.control.stop();
    let before = running.screen.len() / 8;
    thread::sleep(STOPPED);
    running.control.resume().unwrap();
    running.screen.wait_for_more();
    thread::sleep(Duration::from_millis(100));
    running.control.stop();

    let times = running.screen.numbers();
    assert!(times.is_sorted());
    assert!(times.len() > before + 1);
    // No counter runs slower than 1 GHz.
    let passed = Duration::from_nanos(times[before + 1] - times[before - 1]);
    assert!(passed < STOPPED / 2, "{passed:?} passed for the guest");
}

#[test]
fn a_state_that_is_put_back_is_the_state_that_was_taken() {
    let Some(running) = start(DOTS, &[]) else { return };
    running.screen.wait_for_more();

    let states = running.control.ask(0..1, |vcpu| {
        let taken = vcpu.state().unwrap();
        let mut other = taken.clone();
        other.gpr[Gpr::Rbx] = 0x1234_5678;
        other.vector.ymm[3][0] = 7;
        other.fpu.regs[2].mantissa = 1 << 63;
        vcpu.set_state(other.clone()).unwrap();
        let changed = vcpu.state().unwrap();
        vcpu.set_state(taken.clone()).unwrap();
        [(other, changed), (taken, vcpu.state().unwrap())]
    });

    for (put, got) in states.unwrap().remove(0) {
        assert_eq!(put, got);
    }
    running.screen.wait_for_more();
}

/// Waits for a stop.
fn stop_of(control: &Control) -> (u32, DebugStop) {
    let start = std::time::Instant::now();
    loop {
        if let Some(stop) = control.take_debug_stop() {
            control.stop();
            return stop;
        }
        assert!(start.elapsed() < PATIENCE, "the processor does not stop");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_debugger_stops_steps_and_is_told_when_there_are_no_registers_left() {
    // mov ebx, edx after the RDTSC.
    const MOV: u64 = 0x10_0002;
    let Some(running) = start(CLOCK, &[]) else { return };
    let control = &running.control;
    running.screen.wait_for_more();
    let at = |breakpoints: &[u64]| DebugPoints {
        breakpoints: breakpoints.iter().copied().collect(),
        watchpoints: [Watchpoint { la: 0x9000, len: 8, writes_only: true }].into(),
    };

    control.stop();
    control.set_debug_points(1, Some(at(&[MOV]))).unwrap();
    let too_many = control.set_debug_points(1, Some(at(&[1, 2, 3, 4])));
    control.resume().unwrap();

    assert_eq!(too_many, Err(AskError::DebugPoints));
    assert_eq!(stop_of(control), (0, DebugStop::Breakpoint { la: MOV }));
    let rip = control.ask(0..1, |vcpu| {
        let rip = vcpu.state().unwrap().rip;
        vcpu.debug_step().unwrap();
        rip
    });
    assert_eq!(rip, Ok(vec![MOV]));
    control.resume().unwrap();
    assert_eq!(stop_of(control), (0, DebugStop::Step));
    let code = control.ask(0..1, |vcpu| {
        let mut code = [0; 4];
        let read = vcpu.debug_read(MOV, &mut code);
        (vcpu.state().unwrap().rip, read, code)
    });
    assert_eq!(code, Ok(vec![(MOV + 2, 4, [0x89, 0xd3, 0xba, 0xf8])]));
    control.set_debug_points(1, None).unwrap();
    control.resume().unwrap();
    running.screen.wait_for_more();
}
