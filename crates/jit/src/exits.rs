//! The ways from a block to others: see `docs/design/translator.md`.
//!
//! Flags are in `FLAGS` at each of them. Inside the page a block jumps to another one's code straight
//! away. Into other pages it goes by a [`Link`].

use std::mem::offset_of;

use cloister_cpu::native::layout;

use crate::asm::alu::{ADD, AND, CMP, SUB};
use crate::asm::condition::{BELOW, NEGATIVE, NOT_EQUAL};
use crate::asm::shift::{SAR, SHL};
use crate::asm::{Jump, Rm};
use crate::block::{Emitter, Later, crosses};
use crate::links::Link;
use crate::memory::Misses;
use crate::registers::{ADDRESS, CPU, STACK, TEMP, TEMP2, field};

/// A way to another block that is not on the straight way.
#[derive(Debug)]
pub(crate) enum Exit {
    /// A branch is taken to a place from the page's start; the flags may have to be saved, and the block
    /// may have stored.
    Taken { from: Jump, target: i32, save: bool, stored: bool },
    /// By the jump cache to a place from the page's start, with a look at events or without.
    Search { from: Jump, target: i32, look: bool },
    /// By the jump cache to `ADDRESS`, where a link has to lead there, with a look at events or without.
    Link { from: Vec<Jump>, link: u64, look: bool },
    /// To where the link at `TEMP2` does not lead. `op` is the RET.
    Returned { from: Jump, misses: Misses, op: u64 },
}

/// Where a [`Link`] is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the arena.
    At(u64),
    /// `TEMP2` says it.
    Known,
}

impl Place {
    fn field(self, offset: usize) -> Rm {
        match self {
            Self::At(address) => Rm::At(address + offset as u64),
            Self::Known => Rm::Mem(TEMP2, offset as i32),
        }
    }
}

impl Emitter<'_> {
    /// RIP of a place from the page's start.
    pub(crate) fn target(&mut self, target: i32) {
        self.asm.mov(8, ADDRESS, field(layout::PAGE));
        self.asm.lea(8, ADDRESS, Rm::Mem(ADDRESS, target));
    }

    /// Offset of the block in its page.
    fn start(&self) -> i32 {
        (self.block.key & 0xfff) as i32
    }

    /// Whether a way to a place is counted: every loop of ways that are known has one that does not go
    /// forwards.
    fn is_counted(&self, target: i32) -> bool {
        target <= self.start()
    }

    fn count(&mut self) -> Jump {
        self.asm.alu_imm(4, SUB, field(layout::BUDGET), 1);
        self.asm.jcc(NEGATIVE)
    }

    /// A conditional branch to a place from the page's start.
    pub(crate) fn branch(&mut self, condition: u8, target: i32) {
        self.load_flags();
        if self.is_counted(target) {
            // It is taken more often than not.
            let skip = self.asm.jcc(condition ^ 1);
            if self.are_flags_unsaved() {
                self.emit_save();
            }
            self.exit_to(target);
            self.asm.land(skip);
        } else if !self.stored && is_inside(target) {
            self.save_flags();
            let from = self.asm.jcc(condition);
            self.jump_inside(from, target);
        } else {
            let from = self.asm.jcc(condition);
            let (save, stored) = (self.are_flags_unsaved(), self.stored);
            self.later.push(Later::Exit(Exit::Taken { from, target, save, stored }));
        }
    }

    /// Goes to a place from the page's start.
    pub(crate) fn exit_to(&mut self, target: i32) {
        let counted = self.is_counted(target);
        if !is_inside(target) {
            self.target(target);
            return self.follow_new(counted);
        }
        if self.stored {
            // What it stored may be code of the page: see `after_store` about who says so.
            let track = std::ptr::from_ref(self.block.track).addr() + layout::TRACK_GENERATION;
            self.asm.mov_imm(TEMP, track as u64);
            self.asm.alu_imm(4, CMP, Rm::Mem(TEMP, 0), self.block.generation as i32);
            let from = self.asm.jcc(NOT_EQUAL);
            self.later.push(Later::Exit(Exit::Search { from, target, look: false }));
        }
        if counted {
            let from = self.count();
            self.later.push(Later::Exit(Exit::Search { from, target, look: true }));
        }
        let from = self.asm.jmp();
        self.jump_inside(from, target);
    }

    /// A jump to a place in the page, now or as soon as there is a block.
    fn jump_inside(&mut self, from: Jump, target: i32) {
        let place = self.block.key & !0xfff | target as u64;
        let itself = (place == self.block.key && !crosses(self.block)).then_some(self.inner);
        match itself.or_else(|| self.places.find(place, self.block.generation)) {
            Some(code) => self.asm.lead(from, code),
            None => {
                self.waiting.push((place, self.asm.rel32_of(from)));
                self.later.push(Later::Exit(Exit::Search { from, target, look: false }));
            }
        }
    }

    /// Goes to `ADDRESS`, which may be anywhere that is canonical.
    pub(crate) fn exit_anywhere(&mut self) {
        self.follow_new(true);
    }

    /// Goes to `ADDRESS` by a new link.
    fn follow_new(&mut self, counted: bool) {
        let Some((link, _)) = self.new_link() else {
            return self.asm.jmp_to(self.stubs.look_only);
        };
        if counted {
            let from = vec![self.count()];
            self.later.push(Later::Exit(Exit::Link { from, link, look: true }));
        }
        let place = Place::At(link);
        let mut from = vec![self.compare_target(place)];
        from.extend(self.follow(place));
        self.later.push(Later::Exit(Exit::Link { from, link, look: false }));
    }

    /// A new link: its address, and its offset from the first.
    fn new_link(&mut self) -> Option<(u64, u32)> {
        let offset = self.arena.take_link()? * size_of::<Link>() as u32;
        Some((self.arena.links() + u64::from(offset), offset))
    }

    /// The jump where a link does not lead to `ADDRESS`.
    fn compare_target(&mut self, link: Place) -> Jump {
        self.asm.alu(8, CMP, ADDRESS, link.field(offset_of!(Link, la)));
        self.asm.jcc(NOT_EQUAL)
    }

    /// Goes where a link leads. Returned are the jumps where that may be somewhere else now.
    fn follow(&mut self, link: Place) -> [Jump; 2] {
        let asm = &mut *self.asm;
        asm.mov(4, TEMP, link.field(offset_of!(Link, which)));
        asm.mov(8, TEMP, Rm::Index(CPU, TEMP, 0, layout::KEY as i32));
        asm.alu(8, CMP, TEMP, link.field(offset_of!(Link, key)));
        let other = asm.jcc(NOT_EQUAL);
        asm.mov(8, TEMP, field(layout::CHANGES));
        asm.mov(4, TEMP, Rm::Mem(TEMP, 0));
        asm.alu(4, CMP, TEMP, link.field(offset_of!(Link, changes)));
        let changed = asm.jcc(NOT_EQUAL);
        asm.jmp_indirect(link.field(offset_of!(Link, code)));
        [other, changed]
    }

    /// Notes that a call, whose return address is at RSP, is to return to the block's next instruction.
    /// Overwrites flags and `TEMP`.
    pub(crate) fn note_call(&mut self) {
        let Some((_, offset)) = self.new_link() else { return };
        let note = self.note();
        self.asm.store_imm(4, note, offset as i32);
    }

    /// Where a call is noted whose return address is at RSP. Overwrites flags and `TEMP`.
    fn note(&mut self) -> Rm {
        self.asm.mov(4, TEMP, STACK);
        self.asm.alu_imm(4, AND, TEMP, layout::RETURNS_SIZE as i32 - 8);
        Rm::Index(CPU, TEMP, 0, layout::RETURNS as i32)
    }

    /// Returns to `ADDRESS`, which may be non-canonical, by what [`Emitter::note_call`] noted. `pop` is
    /// emitted once that is certain. The interpreter does the op at `op` for `misses`.
    pub(crate) fn exit_to_caller(&mut self, misses: Misses, op: u64, pop: fn(&mut Self)) {
        let note = self.note();
        let asm = &mut *self.asm;
        asm.mov(4, TEMP2, note);
        asm.lea(8, TEMP, Rm::At(self.arena.links()));
        asm.alu(8, ADD, TEMP2, TEMP);
        let from = self.compare_target(Place::Known);
        pop(self);
        self.asm.alu_imm(4, SUB, field(layout::BUDGET), 1);
        self.asm.jcc_to(NEGATIVE, self.stubs.look);
        let [other, changed] = self.follow(Place::Known);
        self.asm.lead(other, self.stubs.dispatch);
        self.asm.lead(changed, self.stubs.dispatch);
        self.later.push(Later::Exit(Exit::Returned { from, misses, op }));
    }

    pub(crate) fn emit_exit(&mut self, exit: Exit) {
        match exit {
            Exit::Taken { from, target, save, stored } => {
                self.asm.land(from);
                if save {
                    self.emit_save();
                }
                self.stored = stored;
                self.exit_to(target);
            }
            Exit::Search { from, target, look } => {
                self.asm.land(from);
                self.target(target);
                let stub = if look { self.stubs.look_only } else { self.stubs.dispatch_only };
                self.asm.jmp_to(stub);
            }
            Exit::Link { from, link, look } => {
                from.into_iter().for_each(|jump| self.asm.land(jump));
                self.asm.lea(8, TEMP2, Rm::At(link));
                self.asm.jmp_to(if look { self.stubs.look } else { self.stubs.dispatch });
            }
            Exit::Returned { from, misses, op } => {
                self.asm.land(from);
                let fault = self.not_canonical();
                crate::operate::pop_return_address(self);
                self.asm.jmp_to(self.stubs.returned_elsewhere);
                self.asm.land(fault);
                self.land_misses(misses);
                self.asm.mov_imm(TEMP, op);
                self.asm.call(self.stubs.interpret);
                self.asm.jmp_to(self.stubs.leave);
            }
        }
    }

    /// A jump where the address in `ADDRESS` is not canonical. Overwrites flags and `TEMP`.
    pub(crate) fn not_canonical(&mut self) -> Jump {
        self.asm.mov(8, TEMP, ADDRESS);
        self.asm.shift_imm(8, SHL, TEMP, 16);
        self.asm.shift_imm(8, SAR, TEMP, 16);
        self.asm.alu(8, CMP, TEMP, ADDRESS);
        self.asm.jcc(NOT_EQUAL)
    }

    /// Goes to `back` unless any of the `size` bytes at host address `ADDRESS` is in a decoded line of
    /// the page whose tracker is at `TEMP2`. Overwrites flags and `TEMP`.
    pub(crate) fn if_decoded(&mut self, size: u8, back: u64) {
        let asm = &mut *self.asm;
        let lines = Rm::Mem(TEMP2, layout::TRACK_LINES as i32);
        let mut hits = Vec::new();
        for byte in [0, i32::from(size) - 1].into_iter().take(usize::from(size).min(2)) {
            asm.lea(8, TEMP, Rm::Mem(ADDRESS, byte));
            asm.shift_imm(4, crate::asm::shift::SHR, TEMP, 6);
            asm.alu_imm(4, AND, TEMP, 63);
            // BT of a bit below 64.
            asm.raw(8, &[0x0f, 0xa3], TEMP, lines);
            hits.push(asm.jcc(BELOW));
        }
        asm.jmp_to(back);
        hits.into_iter().for_each(|hit| self.asm.land(hit));
    }
}

const _: () = assert!(size_of::<Link>() == 32);

/// Whether a place from the page's start is in the page.
fn is_inside(target: i32) -> bool {
    (0..4096).contains(&target)
}
