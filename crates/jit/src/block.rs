//! From a block's ops to host code.

use std::io;
use std::ptr::NonNull;

use cloister_cpu::Cpu;
use cloister_cpu::native::{BlockView, NativeOp, Translator, layout, vectors};
use iced_x86::{Decoder, Instruction};

use crate::arena::Arena;
use crate::asm::condition::{EQUAL, NOT_EQUAL};
use crate::asm::{Asm, Jump, RAX, Rm};
use crate::encode::Encoder;
use crate::flags::{Use, wanted_after};
use crate::host::HostFeatures;
use crate::operate::{self, vector};
use crate::registers::{START, TEMP, TEMP2, field};
use crate::stubs::Stubs;

/// Bytes of code that one processor has room for.
const ARENA: usize = 16 << 20;
/// More than one block's code takes: some 40 ops, of some 200 bytes each with the way to the
/// interpreter.
const MOST: usize = 64 << 10;

/// Translates for one processor.
#[derive(Debug)]
pub struct Jit {
    arena: Arena,
    stubs: Stubs,
    host: HostFeatures,
    encoder: Encoder,
    /// Where the code of blocks begins in the arena.
    first: usize,
    asm: Asm,
    /// What the interpreter is asked to do by code in the arena.
    ops: Vec<Box<[NativeOp]>>,
}

impl Jit {
    /// A translator without any code.
    ///
    /// # Errors
    ///
    /// The host gives no memory, or none that code may run in; or its processor lacks LAHF in 64-bit
    /// mode.
    pub fn new() -> io::Result<Self> {
        Self::on_host(HostFeatures::detect())
    }

    /// As [`Jit::new`], of a host that has these features.
    pub(crate) fn on_host(host: HostFeatures) -> io::Result<Self> {
        if !has_lahf() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut arena = Arena::new(ARENA)?;
        let mut asm = Asm::default();
        asm.start(arena.next());
        let mut encoder = Encoder::new();
        let stubs = Stubs::emit(&mut asm, &mut encoder, host);
        arena.append(&asm.code).ok_or(io::ErrorKind::OutOfMemory)?;
        let first = arena.used();
        Ok(Self { arena, stubs, host, encoder, first, asm, ops: Vec::new() })
    }
}

/// CPUID.80000001H:ECX.LAHF of the host.
fn has_lahf() -> bool {
    std::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 != 0
}

#[expect(unsafe_code, reason = "generated code does what the block's ops do")]
// SAFETY: each instruction is emitted as itself on the registers of `registers`, or by `interpret`;
// memory is reached only where the TLB says so.
unsafe impl Translator for Jit {
    fn translate(&mut self, block: &BlockView<'_>) -> Option<NonNull<u8>> {
        let mut decoder = Decoder::with_ip(64, block.bytes, 0, block.decoder_options);
        let instructions: Vec<Instruction> = decoder.iter().collect();
        // The last op may be none of an instruction: it only ends the block.
        let ends = block.ops.len().checked_sub(instructions.len())?;
        if instructions.iter().any(Instruction::is_invalid) || ends > 1 {
            return None;
        }
        let ops: Box<[NativeOp]> =
            block.ops.iter().map(|&op| NativeOp { op, phys: block.phys }).collect();
        self.asm.start(self.arena.next());
        let mut emitter = Emitter {
            asm: &mut self.asm,
            encoder: &mut self.encoder,
            stubs: self.stubs,
            host: self.host,
            flags: Where::Saved,
            wanted: 0,
            needs: 0,
            later: Vec::new(),
        };
        if !emitter.block(&instructions, &ops, ends == 1) {
            return None;
        }
        let code = self.arena.append(&self.asm.code)?;
        self.ops.push(ops);
        Some(code)
    }

    fn has_room(&self) -> bool {
        ARENA - self.arena.used() > MOST
    }

    fn forget(&mut self) {
        self.arena.truncate(self.first);
        self.ops.clear();
    }

    unsafe fn enter(&mut self, cpu: &mut Cpu, code: NonNull<u8>) -> u8 {
        type Enter = extern "C" fn(&mut Cpu, NonNull<u8>) -> u8;
        // SAFETY: the stub has this signature, and the arena lives as long as this value.
        let enter: Enter = unsafe { std::mem::transmute(self.stubs.enter as *const ()) };
        enter(cpu, code)
    }
}

/// Where the guest's flags are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// In memory, or nobody wants them.
    Saved,
    /// In the host's flags register.
    Host,
}

/// How an instruction is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The interpreter does it.
    Interpreter,
    /// By [`operate::emit`].
    General,
    /// By [`vector::emit`], where this ([`vectors`]) is not barred.
    Vector(u8),
}

/// Code that is not on the straight way, emitted after it.
#[derive(Debug)]
enum Later {
    /// The interpreter does an op.
    Interpret { from: Vec<Jump>, op: u64, back: u64, restore: bool, needs: u8 },
    /// A branch is taken to `target` from the block's start.
    Taken { from: Jump, target: i32, save: bool },
    /// The page that was stored to came to hold code.
    Raced { from: Jump, back: u64, needs: u8 },
    /// Vector instructions of the block, which need `needs` ([`vectors`]), may be barred.
    Barred { from: Jump, back: u64, needs: u8, ops: u64, count: u64 },
}

/// One block under way.
pub(crate) struct Emitter<'a> {
    pub(crate) asm: &'a mut Asm,
    encoder: &'a mut Encoder,
    pub(crate) stubs: Stubs,
    host: HostFeatures,
    flags: Where,
    /// Flags wanted after the instruction under way.
    pub(crate) wanted: u32,
    /// What the vector instructions that follow in the block need.
    needs: u8,
    later: Vec<Later>,
}

impl Emitter<'_> {
    /// Emits a block; `false` if it has to stay interpreted.
    fn block(
        &mut self,
        instructions: &[Instruction],
        ops: &[NativeOp],
        falls_through: bool,
    ) -> bool {
        let ways: Vec<Way> = instructions
            .iter()
            .zip(ops)
            .map(|(instruction, native)| {
                if operate::is_supported(instruction) {
                    return Way::General;
                }
                vector::needs(instruction, &native.op, self.host)
                    .map_or(Way::Interpreter, Way::Vector)
            })
            .collect();
        let inline: Vec<bool> = ways.iter().map(|&way| way != Way::Interpreter).collect();
        let mut needs_after = vec![0; ways.len()];
        let mut needs = 0;
        for (after, way) in needs_after.iter_mut().zip(&ways).rev() {
            *after = needs;
            needs |= if let Way::Vector(more) = way { *more } else { 0 };
        }
        self.bar(needs, ops);
        let uses: Vec<Use> = instructions
            .iter()
            .zip(&inline)
            .map(|(instruction, inline)| {
                Use::of(instruction, !inline || operate::may_leave(instruction))
            })
            .collect();
        let wanted = wanted_after(&uses);
        for (n, instruction) in instructions.iter().enumerate() {
            self.wanted = wanted[n];
            self.needs = needs_after[n];
            let op = &raw const ops[n] as u64;
            let needs_flags = uses[n].needs_flags(self.wanted);
            match ways[n] {
                Way::Interpreter => {
                    self.save_flags(true);
                    self.asm.mov_imm(TEMP, op);
                    self.asm.call(self.stubs.interpret);
                    self.load_vectors(self.needs);
                }
                Way::General => operate::emit(self, instruction, op, needs_flags),
                Way::Vector(_) => {
                    if !vector::emit(self, instruction, op, needs_flags) {
                        return false;
                    }
                }
            }
        }
        let last_inline = inline.last() == Some(&true);
        if falls_through {
            self.save_flags(true);
            let end = ops.last().map_or(0, |native| i32::from(native.op.offset));
            self.asm.lea(8, START, Rm::Mem(START, end));
            // After what the interpreter did the mode may be another one.
            let next = if last_inline { self.stubs.dispatch } else { self.stubs.to_rust };
            self.asm.jmp_to(next);
        } else if !last_inline {
            self.asm.jmp_to(self.stubs.leave);
        }
        self.finish();
        true
    }

    /// The vector registers come into the host's, as far as `needs` says, after Rust code.
    fn load_vectors(&mut self, needs: u8) {
        if needs & vectors::MXCSR != 0 {
            self.asm.call(self.stubs.load_mxcsr);
        } else if needs != 0 {
            self.asm.call(self.stubs.load_vectors);
        }
    }

    /// Before the block: the vector registers are in the host's, if it needs them, and none of its
    /// vector instructions is barred; or the interpreter does all of it. Ops that could bar them end
    /// their block.
    fn bar(&mut self, needs: u8, ops: &[NativeOp]) {
        if needs != 0 {
            self.asm.test_imm(1, field(layout::BARRED), i32::from(needs));
            let from = self.asm.jcc(NOT_EQUAL);
            let (back, count) = (self.asm.here(), ops.len() as u64);
            self.later.push(Later::Barred { from, back, needs, ops: ops.as_ptr() as u64, count });
        }
    }

    /// Emits an instruction as it is; `false` if that cannot be.
    pub(crate) fn encode(&mut self, instruction: &Instruction) -> bool {
        self.encoder.encode(self.asm, instruction)
    }

    fn finish(&mut self) {
        for later in std::mem::take(&mut self.later) {
            match later {
                Later::Interpret { from, op, back, restore, needs } => {
                    from.into_iter().for_each(|jump| self.asm.land(jump));
                    self.asm.mov_imm(TEMP, op);
                    self.asm.call(self.stubs.interpret);
                    self.load_vectors(needs);
                    if restore {
                        self.emit_restore();
                    }
                    self.asm.jmp_to(back);
                }
                Later::Taken { from, target, save } => {
                    self.asm.land(from);
                    if save {
                        self.emit_save();
                    }
                    self.asm.lea(8, START, Rm::Mem(START, target));
                    self.asm.jmp_to(self.stubs.dispatch);
                }
                Later::Raced { from, back, needs } => {
                    self.asm.land(from);
                    self.asm.call(self.stubs.stored);
                    self.load_vectors(needs);
                    self.asm.jmp_to(back);
                }
                Later::Barred { from, back, needs, ops, count } => {
                    self.asm.land(from);
                    self.load_vectors(needs);
                    self.asm.test_imm(1, field(layout::BARRED), i32::from(needs));
                    self.asm.jcc_to(EQUAL, back);
                    self.asm.mov_imm(TEMP, ops);
                    self.asm.mov_imm(TEMP2, count);
                    self.asm.call(self.stubs.interpret_all);
                }
            }
        }
    }

    /// The flags go to memory if they are in the host's register and `wanted`.
    pub(crate) fn save_flags(&mut self, wanted: bool) {
        if self.flags == Where::Host && wanted {
            self.emit_save();
        }
        self.flags = Where::Saved;
    }

    /// The flags come into the host's register. Overwrites `TEMP`.
    pub(crate) fn load_flags(&mut self) {
        if self.flags == Where::Saved {
            self.emit_restore();
            self.flags = Where::Host;
        }
    }

    /// The instruction just emitted has left its flags in the host's register.
    pub(crate) fn flags_set(&mut self) {
        self.flags = Where::Host;
    }

    fn emit_save(&mut self) {
        self.asm.mov(8, TEMP, RAX);
        // LAHF; SETO AL.
        self.asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
        self.asm.store(2, field(layout::FLAGS), RAX);
        self.asm.mov(8, RAX, TEMP);
    }

    fn emit_restore(&mut self) {
        self.asm.mov(8, TEMP, RAX);
        self.asm.raw(4, &[0x0f, 0xb7], RAX, field(layout::FLAGS));
        // ADD AL, 7FH gives OF; SAHF the others.
        self.asm.bytes(&[0x04, 0x7f, 0x9e]);
        self.asm.mov(8, RAX, TEMP);
    }

    /// The way out of the straight code for `from`, and back to here, where the op at `op` is done.
    pub(crate) fn interpreted(&mut self, from: Vec<Jump>, op: u64) {
        if from.is_empty() {
            return;
        }
        let restore = self.flags == Where::Host;
        let back = self.asm.here();
        let needs = self.needs;
        self.later.push(Later::Interpret { from, op, back, restore, needs });
    }

    /// A branch on a condition to `target` from the block's start.
    pub(crate) fn branch(&mut self, condition: u8, target: i32) {
        let from = self.asm.jcc(condition);
        let save = self.flags == Where::Host;
        self.later.push(Later::Taken { from, target, save });
    }

    /// A store turned out to be to code.
    pub(crate) fn raced(&mut self, from: Jump) {
        let back = self.asm.here();
        self.later.push(Later::Raced { from, back, needs: self.needs });
    }
}
