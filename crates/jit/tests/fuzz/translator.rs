//! Any bytes as code of 16-, 32- or 64-bit mode: it ends translated as it does interpreted.

use cloister_cpu::testing::{CODE, DATA, Ending, Guest, RAM_SIZE, STACK, Start};
use cloister_cpu::{ArchState, Stop};
use cloister_jit::Jit;
use cloister_x86::Gpr;
use cloister_x86::segment::seg;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic as M};

use super::undefined::Undefined;

/// The bytes before the code: the mode, when code is translated, flags, and a byte for each of the
/// general-purpose registers.
const HEAD: usize = 3 + Gpr::COUNT;
/// The longest code: no more than the pages that are compared.
const LONGEST: usize = 2048;
/// Instructions, or iterations of one, after which code counts as endless.
const STEPS: u32 = 2000;

/// What code left.
#[derive(Debug, PartialEq)]
struct Outcome {
    ending: Ending,
    state: ArchState,
    /// The pages of code, of data, and below the stack pointer.
    memory: [Box<[u8; 4096]>; 3],
}

/// A guest that is about to run the code of an input, and what its bytes decide besides.
struct Prepared {
    guest: Guest,
    bits: u32,
    hot_from: u32,
}

/// Runs an input, if it comes to an end and is the same each time.
///
/// # Panics
///
/// If it ends otherwise when it is translated.
pub(crate) fn translator(data: &[u8]) {
    if !(HEAD + 1..=HEAD + LONGEST).contains(&data.len()) {
        return;
    }
    let Some(undefined) = end(data) else { return };
    let interpreted = outcome(&mut prepare(data).guest, undefined);
    let mut prepared = prepare(data);
    let jit = Jit::new().expect("the host runs generated code");
    prepared.guest.vcpu.set_translator(Box::new(jit), prepared.hot_from);
    let translated = outcome(&mut prepared.guest, undefined);

    if interpreted != translated {
        let mut decoder =
            Decoder::with_ip(prepared.bits, &data[HEAD..], CODE, DecoderOptions::NONE);
        let listing: Vec<String> =
            decoder.iter().map(|one| format!("{:x}: {one}", one.ip())).collect();
        let [one, other] = [&interpreted, &translated];
        panic!(
            "{} bits: interpreted {:x?}\n{:#x?}\ntranslated {:x?}\n{:#x?}\nmemory differs: {}\n{}",
            prepared.bits,
            one.ending,
            one.state,
            other.ending,
            other.state,
            one.memory != other.memory,
            listing.join("\n")
        );
    }
}

fn prepare(data: &[u8]) -> Prepared {
    let [mode, heat, flags, registers @ ..] = &data[..HEAD] else {
        unreachable!("the head is there")
    };
    let (start, bits) = match mode % 4 {
        0 | 1 => (Start::User64, 64),
        2 => (Start::User32, 32),
        _ => (Start::Real16, 16),
    };
    let mut guest = Guest::new(start);
    guest.load_code(&data[HEAD..]);
    let fill: Vec<u8> = (0..4096_u32).map(|n| (n * 7 + n / 256) as u8).collect();
    guest.write(DATA, &fill);
    let mut state = guest.vcpu.cpu.state().clone();
    let registers: [u64; Gpr::COUNT] = std::array::from_fn(|n| {
        let small = u64::from(registers[n] >> 2);
        match registers[n] & 3 {
            0 => small,
            1 => DATA + 64 * small,
            2 => CODE + small,
            _ => small.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    });
    state.gpr.set_registers(&registers);
    state.gpr[Gpr::Rsp] = STACK & if bits == 16 { 0xffff } else { u64::MAX };
    state.set_rflags(2 | u64::from(flags & 0xd5) | u64::from(flags & 2) << 10);
    guest.vcpu.cpu.set_state(state);
    Prepared { guest, bits, hot_from: u32::from(heat % 3) }
}

/// The flags that are undefined where the code comes to its end: an exception or an exit. `None` if it
/// does not in time, or if it depends on undefined flags or on when it runs.
fn end(data: &[u8]) -> Option<u64> {
    let Prepared { mut guest, bits, .. } = prepare(data);
    let mut undefined = Undefined::default();
    for _ in 0..STEPS {
        let state = guest.vcpu.cpu.state();
        let base = if bits == 64 { 0 } else { state.segs[seg::CS].base };
        let (la, count) = (state.rip.wrapping_add(base), state.gpr[Gpr::Rcx] as u8);
        let mut instruction = Instruction::default();
        if la < RAM_SIZE - 15 {
            let bytes = guest.read::<15>(la);
            Decoder::new(bits, &bytes, DecoderOptions::NONE).decode_out(&mut instruction);
        }
        let varies = matches!(
            instruction.mnemonic(),
            M::Rdtsc | M::Rdtscp | M::Rdrand | M::Rdseed | M::Rdpmc | M::Rdpid
        );
        if varies || undefined.read {
            return None;
        }
        match guest.vcpu.execute_one() {
            Ok(()) | Err(Stop::JUMP) => undefined.retire(&instruction, count),
            Err(_) => return Some(undefined.flags),
        }
    }
    None
}

/// Runs a guest, and takes what it left but for some flags.
fn outcome(guest: &mut Guest, undefined: u64) -> Outcome {
    let ending = guest.run();
    let memory = [CODE, DATA, STACK - 4096].map(|page| Box::new(guest.read(page)));
    let mut state = guest.vcpu.cpu.state().clone();
    state.set_rflags(state.rflags() & !undefined);
    Outcome { ending, state, memory }
}
