//! Stopping and resuming: halted processors, busy ones, ones that the host holds up.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cloister_vmm::cpuid::TSC_HZ;
use cloister_vmm::machine::Outcome;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::guests::{CLOCK, CONTENDING, DOTS, IDLE, RESETS};
use crate::machine::Running;

fn event(name: &str, reason: &str) -> (String, String) {
    (name.into(), reason.into())
}

#[test]
fn nothing_runs_between_stop_and_cont() {
    for code in [DOTS, CONTENDING, CLOCK] {
        let running = Running::start(code, &["--cpus", "3"]);
        let mut client = running.client();
        running.screen.wait_for_more();

        client.get("stop");
        let printed = running.screen.len();
        thread::sleep(Duration::from_millis(50));

        assert_eq!(client.status(), ("paused".into(), false));
        assert_eq!(running.screen.len(), printed);
        client.get("cont");
        running.screen.wait_for_more();
        assert_eq!(client.status(), ("running".into(), true));
        assert_eq!([client.event(), client.event()], [event("STOP", ""), event("RESUME", "")]);
    }
}

#[test]
fn halted_processors_stop_and_go_on() {
    let running = Running::start(IDLE, &["--cpus", "4"]);
    let mut client = running.client();

    for _ in 0..100 {
        client.get("stop");
        client.get("stop");
        client.get("cont");
        client.get("cont");
    }

    for _ in 0..100 {
        assert_eq!([client.event(), client.event()], [event("STOP", ""), event("RESUME", "")]);
    }
    client.get("quit");
    assert_eq!(running.outcome(), Outcome::Quit);
}

#[test]
fn no_time_passes_for_a_stopped_guest() {
    const STOPPED: Duration = Duration::from_secs(3);
    let running = Running::start(CLOCK, &[]);
    running.screen.wait_for_more();

    running.control.stop();
    let before = running.screen.len() / 8;
    thread::sleep(STOPPED);
    running.control.resume().unwrap();
    running.screen.wait_for_more();
    thread::sleep(Duration::from_millis(20));
    running.control.stop();

    let times = running.screen.numbers();
    assert!(times.is_sorted());
    assert!(times.len() > before + 1);
    let passed = Duration::from_nanos(
        (times[before + 1] - times[before - 1]) * 1_000 / (TSC_HZ / 1_000_000),
    );
    assert!(passed < STOPPED / 2, "{passed:?} passed for the guest");
}

#[test]
fn a_reset_while_stopped_leaves_the_machine_stopped_at_its_beginning() {
    let running = Running::start(DOTS, &["--cpus", "2"]);
    let mut client = running.client();
    running.screen.wait_for_more();

    client.get("stop");
    client.get("system_reset");
    assert_eq!(
        [client.event(), client.event()],
        [event("STOP", ""), event("RESET", "host-qmp-system-reset")]
    );
    let printed = running.screen.len();
    thread::sleep(Duration::from_millis(50));

    assert_eq!(client.status(), ("prelaunch".into(), false));
    assert_eq!(running.screen.len(), printed);
    client.get("cont");
    running.screen.wait_for_more();
}

#[test]
fn a_stopped_machine_ends_when_it_is_told_to() {
    for reset in [false, true] {
        let running = Running::start(CONTENDING, &["--cpus", "2"]);
        let mut client = running.client();

        client.get("stop");
        if reset {
            client.get("system_reset");
        }
        client.get("quit");

        assert_eq!(running.outcome(), Outcome::Quit);
    }
}

#[test]
fn a_processor_that_the_host_holds_up_does_not_hold_up_the_monitor() {
    let running = Running::start(DOTS, &["--cpus", "2"]);
    let mut client = running.client();
    running.screen.wait_for_more();
    running.screen.hold(true);
    let start = Instant::now();

    client.get("stop");

    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(client.status(), ("paused".into(), false));
    // The access comes to its end, and nothing after it.
    let printed = running.screen.len();
    running.screen.hold(false);
    thread::sleep(Duration::from_millis(50));
    assert!(running.screen.len() <= printed + 1);
    client.get("cont");
    running.screen.wait_for_more();
}

#[test]
fn threads_of_processors_are_the_hosts() {
    let running = Running::start(CONTENDING, &["--cpus", "3"]);
    let mut client = running.client();

    for _ in 0..2 {
        let cpus = client.get("query-cpus-fast");

        for (index, cpu) in cpus.as_array().unwrap().iter().enumerate() {
            let thread = cpu["thread-id"].as_u64().unwrap();
            let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap();
            assert_eq!(name.trim(), format!("vcpu{index}"));
            assert_eq!((&cpu["cpu-index"], &cpu["target"]), (&index.into(), &"x86_64".into()));
            assert_eq!(cpu["props"]["core-id"], index);
        }
        assert_eq!(cpus.as_array().unwrap().len(), 3);
        client.get("system_reset");
        assert_eq!(client.event().0, "RESET");
    }
}

#[test]
fn no_order_of_commands_from_several_sides_is_a_deadlock() {
    for (seed, code) in (0..).zip([IDLE, DOTS, CONTENDING, RESETS]) {
        let running = Running::start(code, &["--cpus", "3"]);

        thread::scope(|scope| {
            for side in 0..4 {
                let control = running.control.clone();
                scope.spawn(move || {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed * 4 + side);
                    for _ in 0..150 {
                        match rng.next_u32() % 9 {
                            0 | 1 => control.stop(),
                            2..=4 => control.resume().unwrap(),
                            5 => control.reset(),
                            6 => control.powerdown(),
                            // Between two boots there is no answer.
                            7 => drop(control.ask(0..3, |vcpu| vcpu.state())),
                            _ => drop(control.state()),
                        }
                    }
                });
            }
        });
        running.control.quit();

        assert_eq!(running.outcome(), Outcome::Quit, "seed {seed}");
    }
}
