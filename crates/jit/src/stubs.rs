//! Code that all blocks share: in, out, to the next block, and to the interpreter.

use cloister_cpu::native::{interpret, layout, stored};

use crate::asm::{Asm, R11, R12, R13, R14, RAX, RBP, RBX, RDI, RSI, RSP, Reg, Rm};
use crate::registers::{CPU, HOSTS, START, TEMP, field, home};

/// Where the shared code is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    /// `extern "C" fn(cpu, code) -> u8`: enters code.
    pub(crate) enter: u64,
    /// Goes to the block at `START`; flags are saved.
    pub(crate) dispatch: u64,
    /// Leaves for the engine, with RIP in `START`; flags are saved.
    pub(crate) to_rust: u64,
    /// Leaves, with all registers in memory, RIP too, and 0 to return.
    pub(crate) leave: u64,
    /// Called: has the interpreter do the op at `TEMP`, with flags saved; goes on or leaves.
    pub(crate) interpret: u64,
    /// Called: says that the page of the tracker at `R11` was stored to; flags are saved.
    pub(crate) stored: u64,
}

const SAVED: [Reg; 6] = [RBP, RBX, R12, R13, R14, CPU];
const NOT_EQUAL: u8 = 5;
const EQUAL: u8 = 4;
const NEGATIVE: u8 = 8;

fn push(asm: &mut Asm, register: Reg) {
    if register.0 >= 8 {
        asm.bytes(&[0x41]);
    }
    asm.bytes(&[0x50 | register.0 & 7]);
}

fn pop(asm: &mut Asm, register: Reg) {
    if register.0 >= 8 {
        asm.bytes(&[0x41]);
    }
    asm.bytes(&[0x58 | register.0 & 7]);
}

fn load_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.mov(8, host, home(number));
    }
}

fn store_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.store(8, home(number), host);
    }
}

fn call_rust(asm: &mut Asm, function: u64) {
    asm.mov_imm(RAX, function);
    asm.bytes(&[0xff, 0xd0]);
}

impl Stubs {
    /// Emits the stubs.
    pub(crate) fn emit(asm: &mut Asm) -> Self {
        let mut stubs = Self { enter: asm.here(), ..Self::default() };
        for register in SAVED {
            push(asm, register);
        }
        // Calls within the code leave the stack as aligned as they find it.
        asm.alu_imm(8, 5, RSP, 8);
        asm.mov(8, CPU, RDI);
        asm.mov(8, TEMP, RSI);
        load_guest(asm);
        asm.mov(8, START, field(layout::RIP));
        asm.bytes(&[0x41, 0xff, 0xe6]);

        let to_rust = asm.here();
        stubs.to_rust = to_rust;
        store_guest(asm);
        asm.store(8, field(layout::RIP), START);
        stubs.leave = asm.here();
        asm.mov_imm(RAX, 0);
        let out = asm.here();
        asm.alu_imm(8, 0, RSP, 8);
        for register in SAVED.into_iter().rev() {
            pop(asm, register);
        }
        asm.bytes(&[0xc3]);

        stubs.dispatch = asm.here();
        emit_dispatch(asm, to_rust);

        stubs.interpret = asm.here();
        store_guest(asm);
        asm.store(8, field(layout::BLOCK), START);
        asm.alu_imm(8, 5, RSP, 8);
        asm.mov(8, RDI, CPU);
        asm.mov(8, RSI, TEMP);
        call_rust(asm, interpret as *const () as u64);
        asm.alu_imm(8, 0, RSP, 8);
        asm.op(1, 0x84, RAX, RAX);
        let stopped = asm.jcc(NOT_EQUAL);
        load_guest(asm);
        asm.bytes(&[0xc3]);
        asm.land(stopped);
        // The block is left: its return address goes.
        asm.alu_imm(8, 0, RSP, 8);
        asm.jmp_to(out);

        stubs.stored = asm.here();
        store_guest(asm);
        asm.alu_imm(8, 5, RSP, 8);
        asm.mov(8, RDI, R11);
        call_rust(asm, stored as *const () as u64);
        asm.alu_imm(8, 0, RSP, 8);
        load_guest(asm);
        asm.bytes(&[0xc3]);
        stubs
    }
}

/// Looks whether something has to be attended to, then into the jump cache.
fn emit_dispatch(asm: &mut Asm, to_rust: u64) {
    asm.alu_imm(4, 7, field(layout::ATTENTION), 0);
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, field(layout::EVENTS));
    asm.alu_imm(4, 7, Rm::Mem(TEMP, 0), 0);
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.alu_imm(4, 5, field(layout::BUDGET), 1);
    asm.jcc_to(NEGATIVE, to_rust);

    // The slot, as `Blocks` computes it.
    let (pages, per_page) = (layout::JUMP_PAGES as i32 - 1, layout::JUMP_PER_PAGE as i32 - 1);
    let page_shift = layout::JUMP_PER_PAGE.trailing_zeros() as u8;
    asm.mov(8, R13, START);
    asm.shift_imm(8, 5, R13, 12);
    asm.mov(8, TEMP, START);
    asm.shift_imm(8, 5, TEMP, 19);
    asm.alu(4, 6, R13, TEMP);
    asm.alu_imm(4, 4, R13, pages);
    asm.shift_imm(4, 4, R13, page_shift);
    asm.mov(4, TEMP, START);
    asm.shift_imm(4, 5, TEMP, 6);
    asm.alu(4, 6, TEMP, START);
    asm.alu_imm(4, 4, TEMP, per_page);
    asm.alu(4, 1, R13, TEMP);
    asm.shift_imm(4, 4, R13, layout::JUMP_SHIFT as u8);
    asm.alu(8, 0, R13, field(layout::JUMPS));

    let jump = |offset: usize| Rm::Mem(R13, offset as i32);
    asm.alu(8, 7, START, jump(layout::JUMP_LA));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, jump(layout::JUMP_KEY));
    asm.alu(8, 7, TEMP, field(layout::KEY));
    let known = asm.jcc(EQUAL);
    asm.alu(8, 7, TEMP, field(layout::GLOBAL_KEY));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.land(known);
    asm.mov(8, TEMP, field(layout::CHANGES));
    asm.mov(4, TEMP, Rm::Mem(TEMP, 0));
    asm.alu(4, 7, TEMP, jump(layout::JUMP_CHANGES));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, jump(layout::JUMP_CODE));
    asm.op(8, 0x84, TEMP, TEMP);
    asm.jcc_to(EQUAL, to_rust);
    asm.bytes(&[0x41, 0xff, 0xe6]);
}
