//! The body of the fuzz target for the monitor's input, which lies here as a session is not public.

use std::io;
use std::sync::OnceLock;

use cloister_boot::testing;

use super::context::Context;
use super::events::EventQueue;
use super::session::Session;
use crate::config::{BootConfig, EpcConfig, MachineConfig};
use crate::cpu_flags::CpuConfig;
use crate::machine::{Control, Machine};

/// What a client sends, in pieces of as many bytes as the first byte says. How it is divided is to
/// change nothing, and each answer is to be a line that a JSON parser takes.
///
/// # Panics
///
/// Something of this does not hold.
pub fn qmp(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let whole = answers_to([data]);
    let pieces = answers_to(data.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces, "the pieces of the input show in the answers");
    let text = String::from_utf8(whole).expect("UTF-8");
    for line in text.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let known = ["QMP", "return", "error"].iter().filter(|name| answer.get(name).is_some());
        assert_eq!(known.count(), 1, "{answer}");
    }
}

/// What a client gets that sends `pieces` and reads all of the answers, on a machine of its own that
/// has been told to end: processors that never come are not waited for.
fn answers_to<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    let control = Control::new(io::sink());
    control.quit();
    let context = Context::new(MACHINE.get_or_init(machine), &control);
    let (mut session, events) = (Session::new(), EventQueue::default());
    let mut answers = Vec::new();
    // Nothing, at the end: no more will come.
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()).chain([&[][..]]) {
        session.receive(piece);
        session.work(&context, &events);
        while !session.wants_input() && !session.output().is_empty() {
            answers.extend_from_slice(session.output());
            session.sent(session.output().len());
            session.work(&context, &events);
        }
    }
    assert!(session.is_over());
    answers
}

/// A machine with SGX whose kernel is never run.
fn machine() -> Machine {
    let kernel = std::env::temp_dir().join(format!("cloister-fuzz-{}", std::process::id()));
    std::fs::write(&kernel, testing::bzimage(&[])).expect("a kernel");
    let epc = EpcConfig { id: "epc".into(), size: 1 << 20, prealloc: false, node: 0, host_node: 0 };
    let machine = Machine::new(MachineConfig {
        name: Some("fuzz".into()),
        boot: BootConfig::Kernel { kernel: kernel.clone(), initrd: None, cmdline: String::new() },
        ram: 4 << 20,
        cpus: 2,
        nodes: Vec::new(),
        disks: Vec::new(),
        epc: vec![epc],
        epc_quota: None,
        epc_reserve: None,
        cpu: CpuConfig::default(),
        launch_key: None,
        platform: None,
        no_reboot: true,
        accelerator: crate::accel::Choice::Soft,
        translate: crate::config::Translate::On,
    });
    std::fs::remove_file(&kernel).expect("a kernel");
    machine.expect("a machine")
}

#[cfg(test)]
mod tests {
    use super::qmp;

    #[test]
    fn the_division_of_input_shows_in_no_answer() {
        let text = include_bytes!("../../../../fuzz/seeds/qmp/conversation");
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        for end in (0..=text.len()).step_by(3) {
            qmp(&text[..end]);
            let mut changed = text.to_vec();
            for _ in 0..3 {
                changed[random() as usize % text.len()] = random() as u8;
            }
            qmp(&changed);
        }
    }
}
