//! What a processor counts of its translator.

use cloister_cpu::testing::{Ending, Guest, Start};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, ecx, rax};

use super::guest;
use crate::host::HostFeatures;

/// Rounds of the loop.
const ROUNDS: u64 = 1000;

/// A loop of three instructions.
fn count_down(assembler: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut top = assembler.create_label();
    assembler.mov(ecx, ROUNDS as i32)?;
    assembler.set_label(&mut top)?;
    assembler.add(rax, rax)?;
    assembler.dec(ecx)?;
    assembler.jne(top)
}

fn run(guest: &mut Guest) {
    guest.assemble(count_down);
    assert!(matches!(guest.run(), Ending::Exception(_)));
}

#[test]
fn a_loop_is_one_block_that_runs_translated() {
    let mut guest = guest(Start::User64, Some(HostFeatures::detect()));

    run(&mut guest);

    let counts = guest.vcpu.statistics().counts();
    // ADD, DEC, JNE and, since a block goes on after a branch, UD2.
    assert_eq!((counts.blocks, counts.instructions, counts.guest_bytes), (1, 4, 9));
    assert!(counts.code_bytes > counts.guest_bytes && counts.nanoseconds > 0, "{counts:?}");
    assert_eq!(counts.evictions, 0);
    // The rounds until it is translated, and the code around the loop.
    assert!(counts.entries >= 1 && counts.interpreted_runs < ROUNDS / 100, "{counts:?}");
}

#[test]
fn a_processor_without_a_translator_interprets_everything() {
    let mut guest = guest(Start::User64, None);

    run(&mut guest);

    let counts = guest.vcpu.statistics().counts();
    assert_eq!((counts.blocks, counts.entries), (0, 0));
    assert!(counts.interpreted_runs >= ROUNDS, "{counts:?}");
}
