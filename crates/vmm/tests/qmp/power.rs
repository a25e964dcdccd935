//! Resets, power-off and quit, and what the monitor tells of them.

use cloister_vmm::machine::Outcome;

use crate::guests::{CONTENDING, DOTS, IDLE, POWERS_OFF, RESETS};
use crate::machine::Running;

fn event(name: &str, reason: &str) -> (String, String) {
    (name.into(), reason.into())
}

#[test]
fn quit_ends_the_machine_and_is_answered() {
    for code in [IDLE, DOTS, CONTENDING] {
        let mut running = Running::start(code, &["--cpus", "3"]);
        let mut client = running.client();

        client.get("quit");

        assert_eq!(running.outcome(), Outcome::Quit);
        running.end_monitor();
        assert_eq!(client.event(), event("SHUTDOWN", "host-qmp-quit"));
        assert_eq!(client.try_read(), None);
        assert!(!running.socket.exists());
    }
}

#[test]
fn a_power_off_is_told_before_the_monitor_ends() {
    let mut running = Running::start(POWERS_OFF, &["--cpus", "2"]);
    let socket = running.socket.clone();

    assert_eq!(running.outcome(), Outcome::PowerOff);

    // The monitor is there until it is dropped.
    let mut client = running.client();
    assert_eq!(client.status(), ("shutdown".into(), false));
    assert_eq!(client.execute("cont").unwrap_err()["class"], "GenericError");
    running.end_monitor();
    assert!(!socket.exists());
}

#[test]
fn a_reset_from_outside_boots_again() {
    let running = Running::start(DOTS, &["--cpus", "2"]);
    let mut client = running.client();

    for _ in 0..5 {
        client.get("system_reset");
        assert_eq!(client.event(), event("RESET", "host-qmp-system-reset"));
        running.screen.wait_for_more();
    }

    assert_eq!(client.status(), ("running".into(), true));
}

#[test]
fn a_reset_from_outside_that_is_not_to_boot_again_ends_the_machine() {
    let mut running = Running::start(IDLE, &["--no-reboot"]);
    let mut client = running.client();

    client.get("system_reset");

    assert_eq!(running.outcome(), Outcome::Reset);
    running.end_monitor();
    assert_eq!(client.event(), event("SHUTDOWN", "host-qmp-system-reset"));
}

#[test]
fn resets_of_the_guest_are_told_as_its_own() {
    let running = Running::start(RESETS, &[]);
    let mut client = running.client();

    for _ in 0..10 {
        assert_eq!(client.event(), event("RESET", "guest-reset"));
    }
}

#[test]
fn the_power_button_is_told_and_an_unwilling_guest_goes_on() {
    let running = Running::start(DOTS, &[]);
    let mut client = running.client();

    client.get("system_powerdown");

    assert_eq!(client.event(), event("POWERDOWN", ""));
    running.screen.wait_for_more();
}
