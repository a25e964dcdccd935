//! Programs under the interpreter and under the translator: they end alike.

mod crossing;
mod debugger;
mod links;
mod patching;
mod random;
mod stack;
mod statistics;
mod vector;

use cloister_cpu::ArchState;
use cloister_cpu::testing::{DATA, Ending, Guest, Start};

use crate::Jit;
use crate::host::HostFeatures;

/// Bytes at [`DATA`] that programs may use.
const ROOM: usize = 2 * 4096;

/// How a program ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    ending: Ending,
    state: ArchState,
    data: Vec<u8>,
}

/// A guest: translated on a host, or interpreted.
fn guest(start: Start, host: Option<HostFeatures>) -> Guest {
    let mut guest = Guest::new(start);
    if let Some(host) = host {
        let jit = Jit::on_host(host).expect("the host runs generated code");
        guest.vcpu.set_translator(Box::new(jit), 2);
    }
    guest
}

/// Runs code from `initial` as `prepare` changes it, with `data` at [`DATA`].
fn run(
    guest: &mut Guest,
    code: &[u8],
    data: &[u8],
    initial: &ArchState,
    prepare: &dyn Fn(&mut ArchState),
) -> Outcome {
    guest.load_code(code);
    run_loaded(guest, data, initial, prepare)
}

/// As [`run`], of code that is there already.
fn run_loaded(
    guest: &mut Guest,
    data: &[u8],
    initial: &ArchState,
    prepare: &dyn Fn(&mut ArchState),
) -> Outcome {
    guest.write(DATA, data);
    let mut state = initial.clone();
    prepare(&mut state);
    guest.vcpu.cpu.set_state(state);
    let ending = guest.run();
    let data = guest.read::<ROOM>(DATA).to_vec();
    Outcome { ending, state: guest.vcpu.cpu.state().clone(), data }
}

/// Two guests that are to do the same.
struct Pair {
    interpreted: Guest,
    translated: Guest,
    initial: ArchState,
}

impl Pair {
    fn new(host: HostFeatures) -> Self {
        let interpreted = guest(Start::User64, None);
        let initial = interpreted.vcpu.cpu.state().clone();
        Self { interpreted, translated: guest(Start::User64, Some(host)), initial }
    }

    /// Both end alike: how.
    fn check(
        &mut self,
        what: &str,
        code: &[u8],
        data: &[u8],
        prepare: &dyn Fn(&mut ArchState),
    ) -> Ending {
        let expected = run(&mut self.interpreted, code, data, &self.initial, prepare);
        let found = run(&mut self.translated, code, data, &self.initial, prepare);
        compare(what, code, &expected, &found);
        found.ending
    }
}

/// Two ways ended alike.
fn compare(what: &str, code: &[u8], expected: &Outcome, found: &Outcome) {
    if expected != found {
        let mut decoder = iced_x86::Decoder::with_ip(64, code, 0, 0);
        let text: Vec<String> = decoder
            .iter()
            .map(|i| {
                format!("{:?} {:02x?}", i.code(), &code[i.ip() as usize..i.next_ip() as usize])
            })
            .collect();
        let (a, b) = (&expected.state, &found.state);
        let vectors: Vec<String> = (0..16)
            .filter(|&n| a.vector.ymm[n] != b.vector.ymm[n])
            .map(|n| format!("ymm{n} {:x?}\n  is {:x?}", a.vector.ymm[n], b.vector.ymm[n]))
            .collect();
        panic!(
            "{what}: {:?} / {:?}\nregisters {:x?}\n       is {:x?}\nflags {:x} / {:x}\n\
             RIP {:x} / {:x}, MXCSR {:x} / {:x}\n{}\n{}",
            expected.ending,
            found.ending,
            a.gpr.registers(),
            b.gpr.registers(),
            a.rflags(),
            b.rflags(),
            a.rip,
            b.rip,
            a.vector.mxcsr,
            b.vector.mxcsr,
            vectors.join("\n"),
            text.join("\n")
        );
    }
}
