//! The seam of a translator: what code that it generates reads of a processor, calls, and returns.
//!
//! Translated code runs in place of a block's ops. It keeps guest registers where it likes, but
//! [`Cpu`]'s are right whenever it calls [`interpret`] or returns. Whatever it does not do itself it
//! has the op's handler do, so that each instruction's meaning is written once.
#![expect(unsafe_code, reason = "calls generated code")]

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use crate::block::Jump;
use crate::cpu::Cpu;
use crate::engine::stopped;
pub use crate::exec::under_mxcsr;
use crate::exit::{Exec, Stop};
use crate::flags::Flags;
use crate::mem::tlb::{AccessKind, Entry, MmuMode, Tlb};
use crate::op::{BLOCK_SLOT, Op};
use crate::phys::{CODE_CHANGES, CodeTrack, code_changes};
pub use crate::state::vector::{MXCSR_DEFAULT, MXCSR_MASK};
use crate::state::{ArchState, Gprs, VectorState};

/// Translates blocks. What it returns stays valid until [`Translator::forget`] or its drop.
///
/// # Safety
///
/// The code that [`Translator::translate`] returns does, when [`Translator::enter`] runs it, what the
/// block's ops do, in their order, by the layout and the functions of this module; and it returns
/// only as [`Translator::enter`] says.
pub unsafe trait Translator: Send {
    /// Translates a block of 64-bit code; `None` if it stays interpreted.
    fn translate(&mut self, block: &BlockView<'_>) -> Option<NonNull<u8>>;

    /// Whether there is room for another block. If not, the engine drops all that it knows and calls
    /// [`Translator::forget`].
    fn has_room(&self) -> bool;

    /// Bytes of code that it holds.
    fn code_len(&self) -> usize;

    /// Drops all translated code.
    fn forget(&mut self);

    /// Runs translated code: what [`interpret`] returned last if that was not 0, else 0, with RIP at
    /// a block that has to be looked at or looked up.
    ///
    /// # Safety
    ///
    /// `code` was returned by [`Translator::translate`] since the last [`Translator::forget`].
    unsafe fn enter(&mut self, cpu: &mut Cpu, code: NonNull<u8>) -> u8;
}

/// A block to translate.
#[derive(Clone, Copy, Debug)]
pub struct BlockView<'a> {
    /// Its ops. The last one writes RIP, unless an instruction before does.
    pub ops: &'a [Op],
    /// The bytes that they were decoded from: all in the page, or those of one instruction, which crosses
    /// into another. Nothing of the page leads to that one but the jump cache, which knows of both pages.
    pub bytes: &'a [u8],
    /// Identity of its page.
    pub phys: u64,
    /// Its place: identity of the page and decoding mode, and in the low 12 bits its offset in the page.
    pub key: u64,
    /// Tracking of the page's code.
    pub track: &'a CodeTrack,
    /// Generation of the page ([`layout::TRACK_GENERATION`]) that the bytes belong to.
    pub generation: u32,
    /// How the decoder reads them.
    pub decoder_options: u32,
}

/// An op for [`interpret`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NativeOp {
    /// The op.
    pub op: Op,
    /// Identity of its block's page.
    pub phys: u64,
    /// Where its block begins in the page.
    pub start: u16,
    /// Whether it writes RIP: nothing of the block follows it.
    pub last: bool,
}

/// What generated code reads and writes besides the architectural state.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct NativeState {
    /// First entry of the TLB for reads with the current rights, and for writes.
    tlb: [u64; 2],
    /// First entry of the jump cache.
    jumps: u64,
    /// Where [`code_changes`](crate::phys::code_changes) counts.
    changes: u64,
    /// Where the kicker's events are.
    events: u64,
    /// Keys of jumps: of the translations in force, and of the global ones.
    keys: [u64; 2],
    /// Linear address of the page of the block that runs.
    page: u64,
    /// Branches to go before the next look at events. Those are counted that every loop has.
    budget: i32,
    /// Looks at events before the next one at the clock: less than 0 where that is due.
    pub(crate) looks: i32,
    /// Arithmetic flags: bits 15:8 as LAHF has them, bit 0 OF.
    flags: u16,
    /// [`vectors`] bits.
    barred: u8,
    /// The translation of accesses to the stack that translated code used last.
    stack: StackPage,
    /// What the translator notes of calls: at their return address's place on the stack.
    returns: [u64; RETURNS],
}

/// Return addresses on the stack that are told apart, 8 bytes each: a page of them.
const RETURNS: usize = 512;

/// A page that may be read and written, as a TLB entry says. Nothing that drops TLB entries drops this
/// one: therefore it is forgotten wherever Rust code may have done so.
#[derive(Debug)]
#[repr(C)]
struct StackPage {
    /// Linear page address, or [`layout::NO_STACK_PAGE`].
    tag: u64,
    /// Host address minus linear address, modulo 2^64.
    addend: u64,
    /// Where the page's code tracker is.
    track: u64,
}

impl StackPage {
    const NONE: Self = Self { tag: layout::NO_STACK_PAGE, addend: 0, track: 0 };
}

impl Default for NativeState {
    fn default() -> Self {
        Self {
            tlb: [0; 2],
            jumps: 0,
            changes: 0,
            events: 0,
            keys: [0; 2],
            page: 0,
            budget: 0,
            looks: 0,
            flags: 0,
            barred: vectors::ALL,
            stack: StackPage::NONE,
            returns: [0; RETURNS],
        }
    }
}

/// Looks at events between two looks at the clock.
pub(crate) const LOOKS: i32 = 16;

impl NativeState {
    /// Has translated code look up translations of accesses with the rights of `mode`.
    pub(crate) fn point_at(&mut self, tlb: &Tlb, mode: MmuMode) {
        let of = |kind| tlb.entry(kind, mode, 0) as *const Entry as u64;
        self.tlb = [of(AccessKind::Read), of(AccessKind::Write)];
    }
}

/// What translated code may not do with the host's vector registers now. All of it, unless they
/// hold the guest's: outside of translated code never.
pub mod vectors {
    /// Instructions without a VEX prefix.
    pub const SSE: u8 = 1 << 0;
    /// Instructions with a VEX prefix.
    pub const AVX: u8 = 1 << 1;
    /// Instructions under MXCSR.
    pub const MXCSR: u8 = 1 << 2;
    /// All of it.
    pub const ALL: u8 = SSE | AVX | MXCSR;
}

/// Offsets in [`Cpu`] and in what it leads to, in bytes.
pub mod layout {
    use super::*;

    /// RAX, followed by the others.
    pub const GPR: usize = offset_of!(Cpu, arch) + offset_of!(ArchState, gpr);
    /// RIP.
    pub const RIP: usize = offset_of!(Cpu, arch) + offset_of!(ArchState, rip);
    /// Base of ES; those of the other segments follow at [`SEGMENT_SIZE`].
    pub const SEGMENT_BASE: usize = offset_of!(Cpu, arch)
        + offset_of!(ArchState, segs)
        + offset_of!(cloister_x86::Segment, base);
    /// Bytes of a segment register.
    pub const SEGMENT_SIZE: usize = size_of::<cloister_x86::Segment>();
    const RUN: usize = offset_of!(Cpu, run);
    /// The TLB's current context, which hits have in the low 12 bits of their tag.
    pub const CONTEXT: usize = RUN + offset_of!(crate::run_state::RunState, tlb) + Tlb::CONTEXT;
    const NATIVE: usize = RUN + offset_of!(crate::run_state::RunState, native);
    /// Pointer to the TLB for reads.
    pub const TLB_READ: usize = NATIVE + offset_of!(NativeState, tlb);
    /// Pointer to the TLB for writes.
    pub const TLB_WRITE: usize = TLB_READ + 8;
    /// Pointer to the jump cache.
    pub const JUMPS: usize = NATIVE + offset_of!(NativeState, jumps);
    /// Pointer to the count of code changes (32 bits).
    pub const CHANGES: usize = NATIVE + offset_of!(NativeState, changes);
    /// Pointer to the kicker's events (32 bits): anything but 0 ends translated code.
    pub const EVENTS: usize = NATIVE + offset_of!(NativeState, events);
    /// Key of jumps in the current translations.
    pub const KEY: usize = NATIVE + offset_of!(NativeState, keys);
    /// Key of jumps in global translations.
    pub const GLOBAL_KEY: usize = KEY + 8;
    /// Linear address of the page of the block that runs.
    pub const PAGE: usize = NATIVE + offset_of!(NativeState, page);
    /// Counted branches left (32 bits, signed): less than 0 asks for a look at events.
    pub const BUDGET: usize = NATIVE + offset_of!(NativeState, budget);
    /// Counted branches between two looks at events.
    pub const BRANCHES_PER_LOOK: i32 = 64;
    /// Looks left (32 bits, signed): less than 0 ends translated code.
    pub const LOOKS: usize = NATIVE + offset_of!(NativeState, looks);
    /// Linear address of the page that accesses to the stack go to unasked, as far as they do not leave
    /// it. Nothing does while it is [`NO_STACK_PAGE`], as it is after each call of [`interpret`].
    pub const STACK_TAG: usize = NATIVE + offset_of!(NativeState, stack.tag);
    /// Host address minus linear address of that page, which may be read and written.
    pub const STACK_ADDEND: usize = NATIVE + offset_of!(NativeState, stack.addend);
    /// Pointer to the code tracker of that page.
    pub const STACK_TRACK: usize = NATIVE + offset_of!(NativeState, stack.track);
    /// No page: a bit that is clear in addresses of pages, and in the low bits of addresses modulo up to
    /// 2048.
    pub const NO_STACK_PAGE: u64 = 1 << 11;
    /// What the translator notes of calls by the place of their return address on the stack, modulo
    /// [`RETURNS_SIZE`]: 64 bits each, 0 at first.
    pub const RETURNS: usize = NATIVE + offset_of!(NativeState, returns);
    /// Bytes of all of them.
    pub const RETURNS_SIZE: usize = size_of::<[u64; super::RETURNS]>();
    /// Flags (16 bits), see `NativeState`.
    pub const FLAGS: usize = NATIVE + offset_of!(NativeState, flags);
    /// What is barred ([`vectors`], 8 bits).
    pub const BARRED: usize = NATIVE + offset_of!(NativeState, barred);

    const VECTOR: usize = offset_of!(Cpu, arch) + offset_of!(ArchState, vector);
    /// YMM0, followed by the others, 32 bytes each.
    pub const YMM: usize = VECTOR + offset_of!(VectorState, ymm);
    /// MXCSR (32 bits).
    pub const MXCSR: usize = VECTOR + offset_of!(VectorState, mxcsr);

    /// Of a TLB entry: its tag.
    pub const ENTRY_TAG: usize = offset_of!(Entry, tag);
    /// Of a TLB entry: host address minus linear address.
    pub const ENTRY_ADDEND: usize = offset_of!(Entry, addend);
    /// Of a TLB entry: the page's code tracker.
    pub const ENTRY_TRACK: usize = offset_of!(Entry, track);
    /// Of a code tracker: which lines of the page were decoded (64 bits).
    pub const TRACK_LINES: usize = CodeTrack::LINES;
    /// Of a code tracker: the page's generation (32 bits).
    pub const TRACK_GENERATION: usize = CodeTrack::GENERATION;
    /// log2 of a TLB entry's bytes.
    pub const ENTRY_SHIFT: u32 = size_of::<Entry>().trailing_zeros();
    /// Entries of a TLB.
    pub const ENTRIES: usize = crate::mem::tlb::ENTRIES;

    /// log2 of the bytes of a jump-cache entry.
    pub const JUMP_SHIFT: u32 = size_of::<Jump>().trailing_zeros();
    /// Of a jump: its linear address.
    pub const JUMP_LA: usize = offset_of!(Jump, la);
    /// Of a jump: its key.
    pub const JUMP_KEY: usize = offset_of!(Jump, key);
    /// Of a jump: the translated code, or 0.
    pub const JUMP_CODE: usize = offset_of!(Jump, code);
    /// Of a jump: the count of code changes (32 bits).
    pub const JUMP_CHANGES: usize = offset_of!(Jump, changes);
    /// The slot of an address in the jump cache: see [`crate::block`].
    pub const JUMP_FACTOR: u32 = crate::block::JUMP_FACTOR;
    /// How far the product is shifted.
    pub const JUMP_FACTOR_SHIFT: u32 = crate::block::JUMP_FACTOR_SHIFT;

    const _: () = assert!(size_of::<Entry>().is_power_of_two());
    const _: () = assert!(size_of::<Jump>().is_power_of_two());
    const _: () = assert!(size_of::<Gprs>() == 8 * Gprs::SLOTS);
}

/// Flags in the form of [`layout::FLAGS`].
fn pack(flags: Flags) -> u16 {
    let bits = flags.bits();
    ((bits & 0xd5 | 2) << 8 | bits >> 11 & 1) as u16
}

fn unpack(packed: u16) -> u64 {
    u64::from(packed >> 8) | u64::from(packed & 1) << 11
}

/// Has the op's handler do the op at which translated code is, whose guest registers and flags are
/// where [`layout`] says: 0 where it retired, and the code goes on; anything else it returns at once.
pub extern "C" fn interpret(cpu: &mut Cpu, native: &NativeOp) -> u8 {
    cpu.arch.flags.set_bits(unpack(cpu.run.native.flags));
    cpu.arch.gpr[usize::from(BLOCK_SLOT)] = cpu.run.native.page + u64::from(native.start);
    cpu.run.block_phys = native.phys;
    let changes = code_changes();
    let outcome = (native.op.run)(cpu, &native.op);
    cpu.run.native.stack = StackPage::NONE;
    cpu.run.native.flags = pack(cpu.arch.flags);
    match outcome {
        Ok(()) => retired(cpu, native, changes),
        Err(stop) => {
            if stop != Stop::JUMP {
                stopped(cpu, &native.op, stop);
            }
            stop.code()
        }
    }
}

/// As [`interpret`], for ops one after the other, until one does not return 0.
///
/// # Safety
///
/// `ops` is valid for reads of `count` ops.
pub unsafe extern "C" fn interpret_all(cpu: &mut Cpu, ops: *const NativeOp, count: usize) -> u8 {
    // SAFETY: the caller vouches for the ops.
    let ops = unsafe { std::slice::from_raw_parts(ops, count) };
    ops.iter().map(|op| interpret(cpu, op)).find(|&code| code != 0).unwrap_or(0)
}

/// What is barred ([`vectors`]) when the host's vector registers hold the guest's: instructions that
/// the handlers would refuse; and those under MXCSR until that is the guest's too, which it is never
/// while an exception is unmasked.
pub extern "C" fn barred(cpu: &Cpu) -> u8 {
    let bit = |on, bit| if on { bit } else { 0 };
    bit(cpu.is_sse_barred(), vectors::SSE) | bit(cpu.is_avx_barred(), vectors::AVX) | vectors::MXCSR
}

/// Says that the op at which translated code is, which has retired, stored to decoded lines of a page.
/// Returns as [`interpret`].
pub extern "C" fn stored(cpu: &mut Cpu, native: &NativeOp, track: &CodeTrack) -> u8 {
    let changes = code_changes();
    track.stored(0, 4096);
    retired(cpu, native, changes)
}

/// After an op: translated code may not go on with its block where that may have changed since code
/// had changed so often, nor under other translations or rights of fetches than it was entered under,
/// nor where something has to be attended to.
fn retired(cpu: &mut Cpu, native: &NativeOp, changes: u32) -> u8 {
    let as_before = code_changes() == changes && cpu.jump_keys() == cpu.run.native.keys;
    if native.last || as_before && cpu.run.attention == 0 {
        return 0;
    }
    let next = native.start + native.op.offset + u16::from(native.op.len);
    cpu.arch.rip = cpu.run.native.page.wrapping_add(u64::from(next));
    Stop::JUMP.code()
}

impl Cpu {
    /// Runs translated code.
    ///
    /// # Errors
    ///
    /// As a handler.
    ///
    /// # Safety
    ///
    /// `code`, and all code in the jump cache that `jumps` points to, is the translator's since it
    /// last forgot any.
    pub(crate) unsafe fn enter_native(
        &mut self,
        translator: &mut dyn Translator,
        code: NonNull<u8>,
        jumps: *const Jump,
    ) -> Exec {
        let keys = self.jump_keys();
        let native = &mut self.run.native;
        native.jumps = jumps as u64;
        native.changes = (&raw const CODE_CHANGES) as u64;
        native.events = (&raw const self.kicker.events).cast::<AtomicU32>() as u64;
        native.keys = keys;
        native.barred = vectors::ALL;
        native.stack = StackPage::NONE;
        native.flags = pack(self.arch.flags);
        // SAFETY: the caller vouches for the code.
        let code = unsafe { translator.enter(self, code) };
        self.arch.flags.set_bits(unpack(self.run.native.flags));
        Stop::from_code(code).map_or(Ok(()), Err)
    }
}
