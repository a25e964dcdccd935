//! From a block's ops to host code.

use std::io;
use std::ptr::NonNull;

use cloister_cpu::Cpu;
use cloister_cpu::native::{BlockView, NativeOp, Translator, layout, vectors};
use iced_x86::{Decoder, Instruction};

use crate::arena::Arena;
use crate::asm::alu::AND;
use crate::asm::condition::{EQUAL, NOT_EQUAL};
use crate::asm::{Asm, Jump, Size};
use crate::encode::Encoder;
use crate::exits::Exit;
use crate::flags::{Use, wanted_after};
use crate::host::HostFeatures;
use crate::links::{Known, Places};
use crate::memory::Misses;
use crate::operate::{self, vector};
use crate::registers::{ADDRESS, TEMP, TEMP2, field};
use crate::stubs::Stubs;

/// Bytes of code that one processor has room for.
const ARENA: usize = 64 << 20;
/// Links that it has room for.
const LINKS: usize = 1 << 19;
/// More than one block's code takes: some 40 ops, of some 200 bytes each with the way to the
/// interpreter.
const MOST: usize = 64 << 10;
/// More links than one block has.
const MOST_LINKS: usize = 64;

/// Translates for one processor.
#[derive(Debug)]
pub struct Jit {
    arena: Arena,
    stubs: Stubs,
    host: HostFeatures,
    encoder: Encoder,
    /// What the arena holds besides the code of blocks.
    first: (usize, usize),
    asm: Asm,
    /// What the interpreter is asked to do by code in the arena.
    ops: Vec<Box<[NativeOp]>>,
    places: Places,
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
        let mut arena = Arena::new(ARENA, LINKS)?;
        // The first one is that of no block.
        arena.take_link().ok_or(io::ErrorKind::OutOfMemory)?;
        let mut asm = Asm::default();
        asm.start(arena.next());
        let mut encoder = Encoder::new();
        let stubs = Stubs::emit(&mut asm, &mut encoder, host, arena.links());
        arena.append(&asm.code).ok_or(io::ErrorKind::OutOfMemory)?;
        let first = arena.used();
        let (ops, places) = (Vec::new(), Places::default());
        Ok(Self { arena, stubs, host, encoder, first, asm, ops, places })
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
        // Addresses count from the page's start.
        let start = (block.key & 0xfff) as u16;
        let mut decoder =
            Decoder::with_ip(64, block.bytes, u64::from(start), block.decoder_options);
        let instructions: Vec<Instruction> = decoder.iter().collect();
        // The last op may be none of an instruction: it only ends the block.
        let ends = block.ops.len().checked_sub(instructions.len())?;
        if instructions.iter().any(Instruction::is_invalid) || ends > 1 {
            return None;
        }
        let writes_rip = |n: usize| ends == 0 && n + 1 == block.ops.len();
        let native = |(n, &op)| NativeOp { op, phys: block.phys, start, last: writes_rip(n) };
        let ops: Box<[NativeOp]> = block.ops.iter().enumerate().map(native).collect();
        self.asm.start(self.arena.next());
        let mut emitter = Emitter {
            asm: &mut self.asm,
            encoder: &mut self.encoder,
            stubs: self.stubs,
            host: self.host,
            arena: &mut self.arena,
            places: &self.places,
            block,
            inner: 0,
            flags: Where::Saved,
            needs: 0,
            stored: false,
            waiting: Vec::new(),
            later: Vec::new(),
        };
        if !emitter.block(&instructions, &ops, ends == 1) {
            return None;
        }
        let (inner, waiting) = (emitter.inner, emitter.waiting);
        let code = self.arena.append(&self.asm.code)?;
        self.ops.push(ops);
        waiting.into_iter().for_each(|(place, site)| self.places.wait(place, site));
        if !crosses(block) {
            self.places.insert(block.key, Known { code: inner, generation: block.generation });
            for site in self.places.take_waiting(block.key) {
                self.arena.redirect(site, inner);
            }
        }
        Some(code)
    }

    fn has_room(&self) -> bool {
        let (bytes, links) = self.arena.room();
        bytes > MOST && links > MOST_LINKS
    }

    fn code_len(&self) -> usize {
        self.arena.used().0
    }

    fn forget(&mut self) {
        self.arena.truncate(self.first);
        self.ops.clear();
        self.places.clear();
    }

    unsafe fn enter(&mut self, cpu: &mut Cpu, code: NonNull<u8>) -> u8 {
        type Enter = extern "C" fn(&mut Cpu, NonNull<u8>) -> u8;
        // SAFETY: the stub has this signature, and the arena lives as long as this value.
        let enter: Enter = unsafe { std::mem::transmute(self.stubs.enter as *const ()) };
        enter(cpu, code)
    }
}

/// Whether a block is an instruction that crosses into another page: see [`BlockView::bytes`].
pub(crate) const fn crosses(block: &BlockView<'_>) -> bool {
    (block.key & 0xfff) as usize + block.bytes.len() > 4096
}

/// Where the guest's flags are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    /// In `FLAGS`.
    Saved,
    /// In the host's flags register.
    Host,
    /// In both.
    Both,
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
pub(crate) enum Later {
    /// The interpreter does `count` ops.
    Interpret { from: Misses, op: u64, count: usize, back: u64, restore: bool, needs: u8 },
    /// A store of `size` bytes was to a page that holds code.
    Stored { from: Jump, op: u64, size: Size, back: u64, needs: u8 },
    /// Vector instructions of the block, which need `needs` ([`vectors`]), may be barred.
    Barred { from: Jump, back: u64, needs: u8, ops: u64, count: u64 },
    /// A way to another block.
    Exit(Exit),
}

/// One block under way.
pub(crate) struct Emitter<'a> {
    pub(crate) asm: &'a mut Asm,
    encoder: &'a mut Encoder,
    pub(crate) stubs: Stubs,
    host: HostFeatures,
    pub(crate) arena: &'a mut Arena,
    pub(crate) places: &'a Places,
    pub(crate) block: &'a BlockView<'a>,
    /// Where the block's code begins for who comes from its page.
    pub(crate) inner: u64,
    flags: Where,
    /// What the vector instructions that follow in the block need.
    needs: u8,
    /// Whether the block has stored to memory itself.
    pub(crate) stored: bool,
    /// Jumps to places in the page where no block is known: place, and where the rel32 is.
    pub(crate) waiting: Vec<(u64, u64)>,
    pub(crate) later: Vec<Later>,
}

impl Emitter<'_> {
    /// Emits a block; `false` if it has to stay interpreted.
    fn block(
        &mut self,
        instructions: &[Instruction],
        ops: &[NativeOp],
        falls_through: bool,
    ) -> bool {
        // Whoever comes from another page.
        self.asm.alu_imm(8, AND, ADDRESS, -4096);
        self.asm.store(8, field(layout::PAGE), ADDRESS);
        self.inner = self.asm.here();

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
        let mut n = 0;
        while let Some(instruction) = instructions.get(n) {
            let op = &raw const ops[n] as u64;
            let run = operate::run_length(&instructions[n..]);
            if run > 1 {
                self.needs = needs_after[n + run - 1];
                operate::emit_run(self, &instructions[n..n + run], op);
                n += run;
                continue;
            }
            self.needs = needs_after[n];
            let needs_flags = uses[n].needs_flags(wanted[n]);
            match ways[n] {
                Way::Interpreter => {
                    self.lose_flags();
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
            n += 1;
        }
        let last_inline = inline.last() == Some(&true);
        if falls_through {
            self.save_flags();
            let end = ops.last().map_or(0, |native| native.start + native.op.offset);
            if last_inline {
                self.exit_to(i32::from(end));
            } else {
                // After what the interpreter did the mode may be another one.
                self.target(i32::from(end));
                self.asm.jmp_to(self.stubs.to_rust);
            }
        } else if !last_inline {
            self.asm.jmp_to(self.stubs.leave);
        }
        while let Some(later) = self.later.pop() {
            self.emit_later(later);
        }
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

    fn emit_later(&mut self, later: Later) {
        match later {
            Later::Interpret { from, op, count, back, restore, needs } => {
                self.land_misses(from);
                for n in 0..count {
                    self.asm.mov_imm(TEMP, op + (n * size_of::<NativeOp>()) as u64);
                    self.asm.call(self.stubs.interpret);
                }
                self.load_vectors(needs);
                if restore {
                    self.emit_restore();
                }
                self.asm.jmp_to(back);
            }
            Later::Stored { from, op, size, back, needs } => {
                self.asm.land(from);
                self.if_decoded(size, back);
                self.asm.mov_imm(TEMP, op);
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
            Later::Exit(exit) => self.emit_exit(exit),
        }
    }

    /// The flags come into `FLAGS`, too.
    pub(crate) fn save_flags(&mut self) {
        if self.flags == Where::Host {
            self.emit_save();
            self.flags = Where::Both;
        }
    }

    /// The flags come into `FLAGS`, and what follows may overwrite the host's.
    pub(crate) fn lose_flags(&mut self) {
        self.save_flags();
        self.flags = Where::Saved;
    }

    /// The flags come into the host's register, too.
    pub(crate) fn load_flags(&mut self) {
        if self.flags == Where::Saved {
            self.emit_restore();
            self.flags = Where::Both;
        }
    }

    /// The instruction just emitted has left its flags in the host's register.
    pub(crate) fn flags_set(&mut self) {
        self.flags = Where::Host;
    }

    /// Whether the flags are in the host's register alone.
    pub(crate) fn are_flags_unsaved(&self) -> bool {
        self.flags == Where::Host
    }

    pub(crate) fn emit_save(&mut self) {
        // LAHF; SETO AL.
        self.asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
    }

    fn emit_restore(&mut self) {
        // CMP AL, -127 overflows for 1 and not for 0; SAHF gives the others.
        self.asm.bytes(&[0x3c, 0x81, 0x9e]);
    }

    /// The way out of the straight code for `from`, and back to here, where the op at `op` is done.
    pub(crate) fn interpreted(&mut self, from: Misses, op: u64) {
        self.all_interpreted(from, op, 1);
    }

    /// As [`Emitter::interpreted`], for the ops of `count` instructions.
    pub(crate) fn all_interpreted(&mut self, from: Misses, op: u64, count: usize) {
        if from.is_empty() {
            return;
        }
        let restore = self.flags != Where::Saved;
        let back = self.asm.here();
        let needs = self.needs;
        self.later.push(Later::Interpret { from, op, count, back, restore, needs });
    }

    /// The way out of the straight code for a store, and back to here.
    pub(crate) fn stored_to_code_page(&mut self, from: Jump, op: u64, size: Size) {
        self.stored = true;
        let back = self.asm.here();
        let needs = self.needs;
        self.later.push(Later::Stored { from, op, size, back, needs });
    }
}
