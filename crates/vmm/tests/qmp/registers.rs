//! The registers of processors that run, wait, are stopped, are held up or come to their end.

use std::thread;
use std::time::{Duration, Instant};

use cloister_vmm::machine::{AskError, Ended, Outcome};
use serde_json::json;

use crate::client::Client;
use crate::guests::{CONTENDING, DOTS, IDLE, RESETS};
use crate::machine::Running;

impl Client {
    /// A line for people: its text, or the description of the error.
    fn human(&mut self, line: &str) -> Result<String, String> {
        let arguments = json!({ "command-line": line });
        let request = json!({ "execute": "human-monitor-command", "arguments": arguments });
        self.send(request.to_string());
        let answer = self.read_answer();
        match answer["return"].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(answer["error"]["desc"].as_str().unwrap().to_owned()),
        }
    }
}

/// The value of a register in what was printed of a processor.
fn value<'a>(text: &'a str, register: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{register}=")).expect(register);
    rest.split_whitespace().next().unwrap()
}

#[test]
fn registers_of_a_running_machine_are_told_and_it_goes_on() {
    let running = Running::start(DOTS, &["--cpus", "3"]);
    let mut client = running.client();
    running.screen.wait();

    for _ in 0..100 {
        let text = client.human("info registers -a").unwrap();

        let cpus: Vec<&str> = text.split("\r\nCPU#").skip(1).collect();
        assert_eq!(cpus.len(), 3, "{text}");
        for (index, cpu) in cpus.iter().enumerate() {
            assert!(cpu.starts_with(&format!("{index}\r\nEAX=")), "{cpu}");
            // The others wait for a start-up IPI.
            assert_eq!(value(cpu, "HLT"), if index == 0 { "0" } else { "1" });
        }
        assert_eq!(value(cpus[0], "EDX"), "000003f8");
        let at = u32::from_str_radix(value(cpus[0], "EIP"), 16).unwrap();
        assert!((0x10_0000..0x10_0010).contains(&at), "{at:#x}");
    }

    running.screen.wait_for_more();
    assert_eq!(client.status(), ("running".into(), true));
    assert!(running.events.lock().unwrap().is_empty());
}

#[test]
fn registers_of_a_stopped_machine_stand_still() {
    let running = Running::start(CONTENDING, &["--cpus", "2"]);
    let mut client = running.client();
    running.screen.wait_for_more();
    client.get("stop");

    let first = client.human("info registers -a").unwrap();
    thread::sleep(Duration::from_millis(20));
    let second = client.human("info registers -a").unwrap();
    let one = client.human("info registers 1").unwrap();

    assert_eq!(first, second);
    assert!(first.ends_with(&one), "{one}");
    assert_eq!(client.status(), ("paused".into(), false));
    client.get("cont");
    running.screen.wait_for_more();
}

#[test]
fn a_halted_processor_answers_and_stays_halted() {
    let running = Running::start(IDLE, &[]);
    let mut client = running.client();
    let start = Instant::now();
    while value(&client.human("info registers").unwrap(), "HLT") != "1" {
        assert!(start.elapsed() < crate::machine::PATIENCE, "it does not halt");
    }

    for _ in 0..100 {
        let text = client.human("info registers").unwrap();

        assert_eq!((value(&text, "EIP"), value(&text, "HLT")), ("00100001", "1"));
    }
}

#[test]
fn a_machine_reset_while_stopped_tells_the_registers_of_its_beginning() {
    let running = Running::start(DOTS, &[]);
    let mut client = running.client();
    running.screen.wait_for_more();
    client.get("stop");
    client.get("system_reset");
    let start = Instant::now();

    let text = loop {
        match client.human("info registers") {
            // What prints has its port there.
            Ok(text) if value(&text, "EDX") != "000003f8" => break text,
            // The boot that ends, or none.
            Ok(_) | Err(_) => assert!(start.elapsed() < crate::machine::PATIENCE),
        }
    };

    assert_eq!(value(&text, "EIP"), "00100000");
}

#[test]
fn a_processor_that_the_host_holds_up_does_not_hold_up_the_question() {
    let running = Running::start(DOTS, &["--cpus", "2"]);
    let mut client = running.client();
    running.screen.wait_for_more();
    running.screen.hold(true);
    thread::sleep(Duration::from_millis(20));
    let start = Instant::now();

    let held_up = client.human("info registers").unwrap_err();
    // The other one is at the gate.
    let other = client.human("info registers 1");

    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(held_up.contains("held up in a device access"), "{held_up}");
    assert_eq!(value(&other.unwrap(), "HLT"), "1");
    running.screen.hold(false);
    running.screen.wait_for_more();
    assert!(client.human("info registers").is_ok());
}

#[test]
fn a_question_never_outlives_the_machine() {
    for code in [IDLE, DOTS, CONTENDING, RESETS] {
        let running = Running::start(code, &["--cpus", "2"]);

        let last = thread::scope(|scope| {
            let asker = scope.spawn(|| {
                loop {
                    match running.control.ask(0..2, |vcpu| vcpu.state().unwrap().rip) {
                        Ok(rips) => assert_eq!(rips.len(), 2),
                        // RESETS asks for it all the time.
                        Err(AskError::BetweenBoots) => {}
                        Err(error) => return error,
                    }
                }
            });
            thread::sleep(Duration::from_millis(50));
            running.control.quit();
            asker.join().unwrap()
        });

        assert_eq!(last, AskError::Ended(Ended));
        assert_eq!(running.outcome(), Outcome::Quit);
        let mut client = running.client();
        let refused = client.human("info registers").unwrap_err();
        assert_eq!(refused, "the machine has come to its end");
    }
}

#[test]
fn a_changed_register_is_what_the_processor_goes_on_with() {
    let running = Running::start(DOTS, &[]);
    running.screen.wait_for_more();

    let changed = running.control.ask(0..1, |vcpu| {
        let mut state = vcpu.state().unwrap();
        state.gpr[cloister_x86::Gpr::Rax] = u64::from(b'!');
        vcpu.set_state(state).unwrap();
    });

    assert_eq!(changed, Ok(vec![()]));
    running.screen.wait_for_more();
    running.screen.wait_for_more();
    assert_eq!(running.screen.bytes().last(), Some(&b'!'));
}

#[test]
fn other_lines_get_qemus_words() {
    let running = Running::start(IDLE, &["--cpus", "2"]);
    let mut client = running.client();

    for (line, text) in [
        ("", ""),
        ("quit", "unknown command: 'quit'\r\n"),
        ("info mtree", "unknown command: 'info mtree'\r\n"),
        ("info registers -x", "registers: unsupported option -x\r\n"),
        ("info registers 2", "CPU#2 not available\r\n"),
        ("info registers x", "registers: 'x' is not a processor's number\r\n"),
    ] {
        assert_eq!(client.human(line).unwrap(), text, "{line}");
    }
    assert!(client.human("info").unwrap().starts_with("info registers [-a|vcpu] -- "));
    for (arguments, error) in [
        (json!({}), "the argument 'command-line' is missing"),
        (json!({ "command-line": 1 }), "the argument 'command-line' is not a string"),
        (
            json!({ "command-line": "info registers", "cpu-index": 2 }),
            "the argument 'cpu-index' is not a processor's number",
        ),
    ] {
        client.send(
            json!({ "execute": "human-monitor-command", "arguments": arguments }).to_string(),
        );
        assert_eq!(client.read_answer()["error"]["desc"], error);
    }
    let arguments = json!({ "command-line": "info registers", "cpu-index": 1 });
    client.send(json!({ "execute": "human-monitor-command", "arguments": arguments }).to_string());
    assert!(client.read_answer()["return"].as_str().unwrap().starts_with("\r\nCPU#1\r\n"));
}
