//! Code that all blocks share: in, out, to the next block, and to the interpreter.

use cloister_cpu::native::{interpret, interpret_all, layout, stored, vectors};

use crate::asm::alu::{ADD, AND, CMP, OR, SUB, XOR};
use crate::asm::condition::{EQUAL, NEGATIVE, NOT_EQUAL};
use crate::asm::shift::{SHL, SHR};
use crate::asm::{Asm, R12, R13, R14, RAX, RBP, RBX, RDI, RDX, RSI, RSP, Reg, Rm};
use crate::encode::Encoder;
use crate::host::HostFeatures;
use crate::registers::{ADDRESS, CPU, HOSTS, START, TEMP, TEMP2, field, home};
use crate::vectors::VectorStubs;

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
    /// Called: has the interpreter do ops from the block's first at `TEMP` on, as many as `TEMP2` says,
    /// with flags saved; leaves.
    pub(crate) interpret_all: u64,
    /// Called: the guest's vector registers come into the host's; flags are saved. Overwrites flags and
    /// `TEMP`.
    pub(crate) load_vectors: u64,
    /// As [`Stubs::load_vectors`], with MXCSR.
    pub(crate) load_mxcsr: u64,
    /// Called: they go to memory, from the host's registers; flags are saved.
    store_vectors: u64,
    /// Called: says that the page of the tracker at `TEMP2` was stored to; flags are saved.
    pub(crate) stored: u64,
}

const SAVED: [Reg; 6] = [RBP, RBX, R12, R13, R14, CPU];

pub(crate) fn load_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.mov(8, host, home(number));
    }
}

pub(crate) fn store_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.store(8, home(number), host);
    }
}

/// Calls a function of three arguments at most, from code that was itself called.
pub(crate) fn call_rust(asm: &mut Asm, function: u64, arguments: &[Reg]) {
    // Keeps the stack aligned.
    asm.alu_imm(8, SUB, RSP, 8);
    for (&from, to) in arguments.iter().zip([RDI, RSI, RDX]) {
        asm.mov(8, to, from);
    }
    asm.mov_imm(RAX, function);
    asm.call_register(RAX);
    asm.alu_imm(8, ADD, RSP, 8);
}

impl Stubs {
    /// Emits the stubs.
    pub(crate) fn emit(asm: &mut Asm, encoder: &mut Encoder, host: HostFeatures) -> Self {
        let mut stubs = Self { load_vectors: asm.here(), ..Self::default() };
        VectorStubs { asm, encoder, host }.load();
        stubs.load_mxcsr = asm.here();
        VectorStubs { asm, encoder, host }.load_with_mxcsr(stubs.load_vectors);
        stubs.store_vectors = asm.here();
        VectorStubs { asm, encoder, host }.store();

        stubs.enter = asm.here();
        for register in SAVED {
            asm.push(register);
        }
        // Calls within the code leave the stack as aligned as they find it.
        asm.alu_imm(8, SUB, RSP, 8);
        asm.mov(8, CPU, RDI);
        asm.mov(8, TEMP, RSI);
        load_guest(asm);
        asm.mov(8, START, field(layout::RIP));
        asm.jmp_register(TEMP);

        stubs.to_rust = asm.here();
        store_guest(asm);
        asm.store(8, field(layout::RIP), START);
        stubs.leave = asm.here();
        stubs.before_rust(asm);
        asm.mov_imm(RAX, 0);
        let out = asm.here();
        asm.alu_imm(8, ADD, RSP, 8);
        for register in SAVED.into_iter().rev() {
            asm.pop(register);
        }
        asm.ret();

        stubs.dispatch = asm.here();
        emit_dispatch(asm, stubs.to_rust);

        stubs.interpret = asm.here();
        store_guest(asm);
        stubs.before_rust(asm);
        asm.store(8, field(layout::BLOCK), START);
        call_rust(asm, interpret as *const () as u64, &[CPU, TEMP]);
        asm.test(1, RAX, RAX);
        let stopped = asm.jcc(NOT_EQUAL);
        load_guest(asm);
        asm.ret();
        asm.land(stopped);
        // The block is left: its return address goes.
        asm.alu_imm(8, ADD, RSP, 8);
        asm.jmp_to(out);

        stubs.interpret_all = asm.here();
        store_guest(asm);
        stubs.before_rust(asm);
        asm.store(8, field(layout::BLOCK), START);
        call_rust(asm, interpret_all as *const () as u64, &[CPU, TEMP, TEMP2]);
        asm.alu_imm(8, ADD, RSP, 8);
        asm.jmp_to(out);

        stubs.stored = asm.here();
        store_guest(asm);
        stubs.before_rust(asm);
        call_rust(asm, stored as *const () as u64, &[TEMP2]);
        load_guest(asm);
        asm.ret();
        stubs
    }

    /// Rust code finds the vector registers in memory, and overwrites the host's.
    fn before_rust(&self, asm: &mut Asm) {
        asm.alu_imm(1, CMP, field(layout::BARRED), i32::from(vectors::ALL));
        let stored = asm.jcc(EQUAL);
        asm.call(self.store_vectors);
        asm.land(stored);
    }
}

/// Looks whether something has to be attended to, then into the jump cache.
fn emit_dispatch(asm: &mut Asm, to_rust: u64) {
    asm.alu_imm(4, CMP, field(layout::ATTENTION), 0);
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, field(layout::EVENTS));
    asm.alu_imm(4, CMP, Rm::Mem(TEMP, 0), 0);
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.alu_imm(4, SUB, field(layout::BUDGET), 1);
    asm.jcc_to(NEGATIVE, to_rust);

    // The slot, as `Blocks` computes it.
    let (pages, per_page) = (layout::JUMP_PAGES as i32 - 1, layout::JUMP_PER_PAGE as i32 - 1);
    let page_shift = layout::JUMP_PER_PAGE.trailing_zeros() as u8;
    asm.mov(8, ADDRESS, START);
    asm.shift_imm(8, SHR, ADDRESS, 12);
    asm.mov(8, TEMP, START);
    asm.shift_imm(8, SHR, TEMP, 19);
    asm.alu(4, XOR, ADDRESS, TEMP);
    asm.alu_imm(4, AND, ADDRESS, pages);
    asm.shift_imm(4, SHL, ADDRESS, page_shift);
    asm.mov(4, TEMP, START);
    asm.shift_imm(4, SHR, TEMP, 6);
    asm.alu(4, XOR, TEMP, START);
    asm.alu_imm(4, AND, TEMP, per_page);
    asm.alu(4, OR, ADDRESS, TEMP);
    asm.shift_imm(4, SHL, ADDRESS, layout::JUMP_SHIFT as u8);
    asm.alu(8, ADD, ADDRESS, field(layout::JUMPS));

    let jump = |offset: usize| Rm::Mem(ADDRESS, offset as i32);
    asm.alu(8, CMP, START, jump(layout::JUMP_LA));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, jump(layout::JUMP_KEY));
    asm.alu(8, CMP, TEMP, field(layout::KEY));
    let known = asm.jcc(EQUAL);
    asm.alu(8, CMP, TEMP, field(layout::GLOBAL_KEY));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.land(known);
    asm.mov(8, TEMP, field(layout::CHANGES));
    asm.mov(4, TEMP, Rm::Mem(TEMP, 0));
    asm.alu(4, CMP, TEMP, jump(layout::JUMP_CHANGES));
    asm.jcc_to(NOT_EQUAL, to_rust);
    asm.mov(8, TEMP, jump(layout::JUMP_CODE));
    asm.test(8, TEMP, TEMP);
    asm.jcc_to(EQUAL, to_rust);
    asm.jmp_register(TEMP);
}
