//! Programs under the interpreter and under the translator: they end alike.

mod random;

use cloister_cpu::ArchState;
use cloister_cpu::testing::{DATA, Ending, Guest, Start};

use crate::Jit;

/// Bytes at [`DATA`] that programs may use.
const ROOM: usize = 2 * 4096;

/// How a program ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    ending: Ending,
    state: ArchState,
    data: Vec<u8>,
}

/// A guest with a translator or without.
fn guest(translated: bool) -> Guest {
    let mut guest = Guest::new(Start::User64);
    if translated {
        let jit = Jit::new().expect("the host runs generated code");
        guest.vcpu.set_translator(Box::new(jit), 2);
    }
    guest
}

/// Runs code at CPL 3 from a state.
fn run(code: &[u8], translated: bool, prepare: &dyn Fn(&mut ArchState)) -> Outcome {
    let mut guest = guest(translated);
    guest.load_code(code);
    let fill: Vec<u8> = (0..ROOM).map(|n| (n * 7 + n / 256) as u8).collect();
    guest.write(DATA, &fill);
    let mut state = guest.vcpu.cpu.state().clone();
    prepare(&mut state);
    guest.vcpu.cpu.set_state(state);
    let ending = guest.run();
    let data = guest.read::<ROOM>(DATA).to_vec();
    Outcome { ending, state: guest.vcpu.cpu.state().clone(), data }
}

/// Both ways end alike.
fn check(what: &str, code: &[u8], prepare: &dyn Fn(&mut ArchState)) {
    let (expected, found) = (run(code, false, prepare), run(code, true, prepare));
    if expected != found {
        let mut decoder = iced_x86::Decoder::with_ip(64, code, 0, 0);
        let text: Vec<String> = decoder
            .iter()
            .map(|i| {
                format!("{:?} {:02x?}", i.code(), &code[i.ip() as usize..i.next_ip() as usize])
            })
            .collect();
        let (a, b) = (&expected.state, &found.state);
        panic!(
            "{what}: {:?} / {:?}\nregisters {:x?}\n       is {:x?}\nflags {:x} / {:x}\n{}",
            expected.ending,
            found.ending,
            a.gpr.registers(),
            b.gpr.registers(),
            a.rflags(),
            b.rflags(),
            text.join("\n")
        );
    }
}
