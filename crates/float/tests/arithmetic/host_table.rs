//! The table of what hosts may differ in, which is the differential test's, for tests of single
//! x87 instructions.
#![allow(dead_code, unused_imports, reason = "the differential test uses the rest of these files")]

use cloister_float::F80;
use iced_x86::{Code, Instruction};

#[path = "../../../jit/tests/diff/address.rs"]
mod address;
#[path = "../../../jit/tests/diff/case.rs"]
mod case;
#[path = "../../../jit/tests/diff/compare.rs"]
mod compare;
#[path = "../../../jit/tests/diff/segments.rs"]
mod segments;
#[path = "../../../jit/tests/diff/variance/mod.rs"]
mod variance;

use case::{CODE, Case, DATA_LEN, Fx, Mode, State};
use variance::{Processor, Trial};

/// What an instruction left in the status word, of which the exception flags and C2 count, and in
/// ST(0) and ST(1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) stack: [F80; 2],
}

/// What differs between the outcomes of an instruction that began with ST(0) and ST(1), and is
/// excused by no row for this host.
pub(super) fn unexcused(
    code: Code,
    control: u16,
    operands: [F80; 2],
    native: Outcome,
    soft: Outcome,
) -> Vec<String> {
    if native == soft {
        return Vec::new();
    }
    let instruction = Instruction::with(code);
    let before = case(control, Outcome { status: 0, stack: operands });
    let (native, soft) = (case(control, native), case(control, soft));
    let trial = Trial { instruction: &instruction, before: &before, native: &native, soft: &soft };
    let processor = Processor::detect();
    compare::differences(&trial)
        .into_iter()
        .filter(|found| variance::excuse(&processor, &trial, found.part).is_none())
        .map(|found| found.text)
        .collect()
}

fn case(control: u16, Outcome { status, stack }: Outcome) -> Case {
    let mut st = [[0; 16]; 8];
    for (slot, value) in st.iter_mut().zip(stack) {
        slot[..10].copy_from_slice(&value.to_bytes());
    }
    let empty = State::empty();
    let fx = Fx { control, status: status & 0x43f, st, ..empty.fx };
    let state = State { fx, ..empty };
    Case::new(Mode::Bits64, &[0xcc; 2], state)
}
