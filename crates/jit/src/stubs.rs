//! Code that all blocks share: in, out, to the next block, and to the interpreter.

use std::mem::offset_of;

use cloister_cpu::native::{interpret, interpret_all, layout, stored, vectors};

use crate::asm::alu::{ADD, AND, CMP, OR, SUB};
use crate::asm::condition::{EQUAL, NEGATIVE, NOT_EQUAL};
use crate::asm::shift::{SHL, SHR};
use crate::asm::{Asm, R12, R13, R14, RAX, RBP, RBX, RDI, RDX, RSI, RSP, Reg, Rm};
use crate::encode::Encoder;
use crate::host::HostFeatures;
use crate::links::Link;
use crate::memory::{Access, find_entry};
use crate::registers::{ADDRESS, CPU, FLAGS, HOSTS, TEMP, TEMP2, field, home};
use crate::vectors::VectorStubs;

/// Where the shared code is. Flags are in `FLAGS` where it is reached, and RIP in `ADDRESS` unless it
/// says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    /// `extern "C" fn(cpu, code) -> u8`: enters code.
    pub(crate) enter: u64,
    /// Goes to the block at RIP by way of the jump cache, and has the [`Link`] at `TEMP2` lead there.
    pub(crate) dispatch: u64,
    /// As `dispatch`, for no link.
    pub(crate) dispatch_only: u64,
    /// Counts a branch and goes on as `dispatch`.
    pub(crate) counted: u64,
    /// Looks at events, and goes on as `dispatch`.
    pub(crate) look: u64,
    /// As `look`, for no link.
    pub(crate) look_only: u64,
    /// A return that is not to where the link at `TEMP2` leads. Goes on as `counted`.
    pub(crate) returned_elsewhere: u64,
    /// Leaves for the engine.
    pub(crate) to_rust: u64,
    /// Leaves, with all registers and flags in memory, RIP too, and 0 to return.
    pub(crate) leave: u64,
    /// Called: has the interpreter do the op at `TEMP`; goes on or leaves.
    pub(crate) interpret: u64,
    /// Called: has the interpreter do ops from the block's first at `TEMP` on, as many as `TEMP2` says;
    /// leaves.
    pub(crate) interpret_all: u64,
    /// Called: the guest's vector registers come into the host's. Overwrites flags and `TEMP`.
    pub(crate) load_vectors: u64,
    /// As [`Stubs::load_vectors`], with MXCSR.
    pub(crate) load_mxcsr: u64,
    /// Called: they go to memory, from the host's registers.
    store_vectors: u64,
    /// Called: says that the op at `TEMP` stored to decoded lines of the page of the tracker at
    /// `TEMP2`; goes on or leaves.
    pub(crate) stored: u64,
    /// Called: as [`Emitter::probe`](crate::block::Emitter::probe) of a read of one byte more than `TEMP`
    /// says, with ZF clear where the TLB does not know the page. The stack is in that page from then on,
    /// if it may be written.
    pub(crate) read_stack: u64,
    /// As `read_stack`, of a store.
    pub(crate) write_stack: u64,
}

const SAVED: [Reg; 6] = [RBP, RBX, R12, R13, R14, CPU];

/// Guest registers and flags come into those of the host.
pub(crate) fn load_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.mov(8, host, home(number));
    }
    asm.raw(4, &[0x0f, 0xb7], FLAGS, field(layout::FLAGS));
}

pub(crate) fn store_guest(asm: &mut Asm) {
    for (number, host) in HOSTS {
        asm.store(8, home(number), host);
    }
    asm.store(2, field(layout::FLAGS), FLAGS);
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
    /// Emits the stubs. `nowhere` is a link that no block uses.
    pub(crate) fn emit(
        asm: &mut Asm,
        encoder: &mut Encoder,
        host: HostFeatures,
        nowhere: u64,
    ) -> Self {
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
        asm.mov(8, ADDRESS, field(layout::RIP));
        asm.jmp_indirect(TEMP);

        stubs.to_rust = asm.here();
        store_guest(asm);
        asm.store(8, field(layout::RIP), ADDRESS);
        stubs.leave = asm.here();
        stubs.before_rust(asm);
        asm.mov_imm(RAX, 0);
        let out = asm.here();
        asm.alu_imm(8, ADD, RSP, 8);
        for register in SAVED.into_iter().rev() {
            asm.pop(register);
        }
        asm.ret();

        stubs.returned_elsewhere = asm.here();
        // A link that is good is left as it is.
        let link = |offset| Rm::Mem(TEMP2, offset as i32);
        asm.mov(4, TEMP, link(offset_of!(Link, which)));
        asm.mov(8, TEMP, Rm::Index(CPU, TEMP, 0, layout::KEY as i32));
        asm.alu(8, CMP, TEMP, link(offset_of!(Link, key)));
        let stale = asm.jcc(NOT_EQUAL);
        asm.lea(8, TEMP2, Rm::At(nowhere));
        asm.land(stale);
        stubs.counted = asm.here();
        asm.alu_imm(4, SUB, field(layout::BUDGET), 1);
        let due = asm.jcc(NEGATIVE);
        let dispatch = asm.jmp();
        stubs.look_only = asm.here();
        asm.lea(8, TEMP2, Rm::At(nowhere));
        asm.land(due);
        stubs.look = asm.here();
        asm.mov(8, TEMP, field(layout::EVENTS));
        asm.alu_imm(4, CMP, Rm::Mem(TEMP, 0), 0);
        asm.jcc_to(NOT_EQUAL, stubs.to_rust);
        asm.alu_imm(4, SUB, field(layout::LOOKS), 1);
        asm.jcc_to(NEGATIVE, stubs.to_rust);
        asm.store_imm(4, field(layout::BUDGET), layout::BRANCHES_PER_LOOK - 1);
        let again = asm.jmp();
        stubs.dispatch_only = asm.here();
        asm.lea(8, TEMP2, Rm::At(nowhere));
        asm.land(dispatch);
        asm.land(again);
        stubs.dispatch = asm.here();
        emit_dispatch(asm, stubs.to_rust);

        stubs.interpret = asm.here();
        stubs.call_for_op(asm, interpret as *const () as u64, &[CPU, TEMP], out);
        stubs.stored = asm.here();
        stubs.call_for_op(asm, stored as *const () as u64, &[CPU, TEMP, TEMP2], out);

        stubs.write_stack = asm.here();
        emit_probe_stack(asm, Access::Write);
        asm.ret();
        stubs.read_stack = asm.here();
        asm.push(TEMP);
        emit_probe_stack(asm, Access::Write);
        asm.pop(TEMP);
        let known = asm.jcc(EQUAL);
        emit_probe_stack(asm, Access::Read);
        asm.land(known);
        asm.ret();

        stubs.interpret_all = asm.here();
        store_guest(asm);
        stubs.before_rust(asm);
        call_rust(asm, interpret_all as *const () as u64, &[CPU, TEMP, TEMP2]);
        asm.alu_imm(8, ADD, RSP, 8);
        asm.jmp_to(out);
        stubs
    }

    /// Called: calls a function that says with a byte how an op ended. 0 goes on, another one leaves
    /// through `out` with it.
    fn call_for_op(&self, asm: &mut Asm, function: u64, arguments: &[Reg], out: u64) {
        store_guest(asm);
        self.before_rust(asm);
        call_rust(asm, function, arguments);
        asm.test(1, RAX, RAX);
        let stopped = asm.jcc(NOT_EQUAL);
        load_guest(asm);
        asm.ret();
        asm.land(stopped);
        // The block is left: its return address goes.
        asm.alu_imm(8, ADD, RSP, 8);
        asm.jmp_to(out);
    }

    /// Rust code finds the vector registers in memory, and overwrites the host's.
    fn before_rust(&self, asm: &mut Asm) {
        asm.alu_imm(1, CMP, field(layout::BARRED), i32::from(vectors::ALL));
        let stored = asm.jcc(EQUAL);
        asm.call(self.store_vectors);
        asm.land(stored);
    }
}

/// Looks up the bytes from `ADDRESS` to `ADDRESS + TEMP` in a TLB, and has the stack in the page that may
/// be written: ZF says whether the TLB knows it.
fn emit_probe_stack(asm: &mut Asm, access: Access) {
    let entry = |offset: usize| Rm::Mem(TEMP, offset as i32);
    asm.lea(8, TEMP2, Rm::Index(ADDRESS, TEMP, 0, 0));
    asm.alu_imm(8, AND, TEMP2, -4096);
    asm.alu(8, OR, TEMP2, field(layout::CONTEXT));
    find_entry(asm, access);
    asm.alu(8, CMP, TEMP2, entry(layout::ENTRY_TAG));
    let miss = asm.jcc(NOT_EQUAL);
    if access == Access::Write {
        asm.mov(8, TEMP2, ADDRESS);
        asm.alu_imm(8, AND, TEMP2, -4096);
        asm.store(8, field(layout::STACK_TAG), TEMP2);
        asm.mov(8, TEMP2, entry(layout::ENTRY_ADDEND));
        asm.store(8, field(layout::STACK_ADDEND), TEMP2);
        asm.mov(8, TEMP2, entry(layout::ENTRY_TRACK));
        asm.store(8, field(layout::STACK_TRACK), TEMP2);
    }
    asm.alu(8, ADD, ADDRESS, entry(layout::ENTRY_ADDEND));
    asm.alu(8, CMP, TEMP, TEMP);
    asm.land(miss);
}

/// Looks into the jump cache.
fn emit_dispatch(asm: &mut Asm, to_rust: u64) {
    asm.store(2, field(layout::FLAGS), FLAGS);
    // The slot, as `Blocks` computes it.
    asm.mul_imm(4, TEMP, ADDRESS, layout::JUMP_FACTOR as i32);
    asm.shift_imm(4, SHR, TEMP, layout::JUMP_FACTOR_SHIFT as u8);
    asm.shift_imm(4, SHL, TEMP, layout::JUMP_SHIFT as u8);
    asm.alu(8, ADD, TEMP, field(layout::JUMPS));

    let jump = |offset: usize| Rm::Mem(TEMP, offset as i32);
    let link = |offset: usize| Rm::Mem(TEMP2, offset as i32);
    let mut misses = Vec::new();
    asm.alu(8, CMP, ADDRESS, jump(layout::JUMP_LA));
    misses.push(asm.jcc(NOT_EQUAL));
    asm.alu_imm(8, CMP, jump(layout::JUMP_CODE), 0);
    misses.push(asm.jcc(EQUAL));
    asm.mov(8, RAX, field(layout::CHANGES));
    asm.mov(4, RAX, Rm::Mem(RAX, 0));
    asm.alu(4, CMP, RAX, jump(layout::JUMP_CHANGES));
    misses.push(asm.jcc(NOT_EQUAL));
    asm.mov(8, RAX, jump(layout::JUMP_KEY));
    asm.store_imm(4, link(offset_of!(Link, which)), 0);
    asm.alu(8, CMP, RAX, field(layout::KEY));
    let known = asm.jcc(EQUAL);
    asm.store_imm(4, link(offset_of!(Link, which)), (layout::GLOBAL_KEY - layout::KEY) as i32);
    asm.alu(8, CMP, RAX, field(layout::GLOBAL_KEY));
    misses.push(asm.jcc(NOT_EQUAL));
    asm.land(known);
    asm.store(8, link(offset_of!(Link, key)), RAX);
    asm.store(8, link(offset_of!(Link, la)), ADDRESS);
    asm.mov(4, RAX, jump(layout::JUMP_CHANGES));
    asm.store(4, link(offset_of!(Link, changes)), RAX);
    asm.mov(8, RAX, jump(layout::JUMP_CODE));
    asm.store(8, link(offset_of!(Link, code)), RAX);
    asm.raw(4, &[0x0f, 0xb7], FLAGS, field(layout::FLAGS));
    asm.jmp_indirect(link(offset_of!(Link, code)));

    misses.into_iter().for_each(|miss| asm.land(miss));
    asm.raw(4, &[0x0f, 0xb7], FLAGS, field(layout::FLAGS));
    asm.jmp_to(to_rust);
}
