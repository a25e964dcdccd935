//! Blocks of decoded code and where to find them.
#![expect(unsafe_code, reason = "runs and jumps point to ops, and to translated code")]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

use crate::mode::Mode;
use crate::op::Op;
use crate::phys::{Tracker, code_changes};

/// Blocks kept: half of what a table of 2^18 places holds, which then is tidied up rather than
/// enlarged where places of dropped blocks fill it.
const BLOCKS: usize = 7 << 14;
/// Ops in one piece of the store, whose blocks go together.
const PIECE: usize = 1 << 16;
/// Pieces of the store.
const PIECES: usize = 16;
/// Entries of the jump cache: 2 MiB. A large program runs some ten thousand blocks over and over.
const JUMPS: usize = 1 << JUMP_BITS;
const JUMP_BITS: u32 = 15;
/// The slot of an address is its low half times this, an odd number near 2^32 divided by the golden
/// ratio, shifted right by that.
pub(crate) const JUMP_FACTOR: u32 = 0x9e37_79b1;
pub(crate) const JUMP_FACTOR_SHIFT: u32 = u32::BITS - JUMP_BITS;

/// Ops to run, for [`Blocks::ops`], until blocks are added or dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// In the store of the [`Blocks`] that made it.
    ops: NonNull<[Op]>,
    /// Identity of the page: see [`Entry::phys`](crate::mem::tlb::Entry::phys).
    pub(crate) phys: u64,
    /// Translated code to run in place of the ops.
    pub(crate) code: Option<NonNull<u8>>,
    /// How often the ops have run before, as far as is known: by a jump of the cache, and by the block
    /// where others took the jump's place.
    pub(crate) heat: u32,
}

/// Bytes of code that a block was decoded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Identity of the page.
    pub(crate) phys: u64,
    /// Code tracking of the page.
    pub(crate) track: Tracker,
    /// Generation of the page that the bytes belong to.
    pub(crate) generation: u32,
}

impl Source {
    /// Whether the bytes are still those that were decoded.
    #[inline]
    #[must_use]
    pub(crate) fn is_fresh(&self) -> bool {
        self.track.generation() == self.generation
    }
}

/// Straight-line code, left early by branches that are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Where the ops are in the store. The last one writes `rip`.
    start: u32,
    count: u32,
    /// Bytes of code that it was decoded from.
    len: usize,
    pub(crate) source: Source,
    /// Where the one instruction of a block that crosses into another page ends.
    pub(crate) second: Option<Source>,
    /// Translated code.
    code: Option<NonNull<u8>>,
    /// How often it was found by its place, the first time not included.
    heat: u32,
}

// SAFETY: the place of translated code is that of the processor's translator, which is `Send` and
// goes to another thread with the processor alone.
unsafe impl Send for Block {}

impl Block {
    /// Whether the bytes are still those that were decoded.
    #[must_use]
    pub(crate) fn is_fresh(&self) -> bool {
        self.source.is_fresh() && self.second.is_none_or(|second| second.is_fresh())
    }

    /// Bytes of code that it was decoded from.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Jump {
    pub(crate) la: u64,
    /// What the entry depends on; 0: an empty entry.
    pub(crate) key: u64,
    /// Translated code of the block.
    pub(crate) code: Option<NonNull<u8>>,
    /// [`code_changes`] when the block was known to be fresh.
    pub(crate) changes: u32,
    count: u32,
    /// In the store, which never moves and never shrinks.
    ops: NonNull<Op>,
    phys: u64,
    /// How often the ops have run.
    heat: u32,
}

impl Jump {
    /// Whether it leads to a fresh block at `la` under one of two keys.
    #[inline(always)]
    fn leads_to(&self, la: u64, key: u64, global_key: u64) -> bool {
        self.la == la
            && (self.key == key || self.key == global_key)
            && self.changes == code_changes()
    }

    /// What to run of its block.
    #[inline(always)]
    fn run(&self) -> Run {
        Run {
            ops: NonNull::slice_from_raw_parts(self.ops, self.count as usize),
            phys: self.phys,
            code: self.code,
            heat: self.heat,
        }
    }
}

/// Whether code at `la` may be translated: not within the reach of a relative branch (2 GiB) from
/// where canonical addresses end, for a branch beyond it faults at the branch, which translated
/// code does not look for.
pub(crate) const fn may_translate(la: u64) -> bool {
    !matches!(la >> 31, 0xffff | 0x1_ffff_0000)
}

// SAFETY: the ops are plain data of the `Blocks` that holds the jump; of the code, see `Block`.
unsafe impl Send for Jump {}

const NO_JUMP: Jump = Jump {
    la: 0,
    key: 0,
    code: None,
    changes: 0,
    count: 0,
    ops: NonNull::dangling(),
    phys: 0,
    heat: 0,
};

/// Multiplies and folds: the keys are few and not chosen to collide (a guest that makes them
/// collide slows only itself).
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    #[cfg_attr(
        not(test),
        expect(clippy::cast_possible_truncation, reason = "folds the halves of the product")
    )]
    fn write_u64(&mut self, value: u64) {
        let product =
            u128::from(self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// The decoded blocks of a processor.
///
/// Ops are kept in a ring: once it is full, the oldest piece is dropped for new ones. Whoever holds
/// a place in it is dropped with the piece, so that every [`Run`] of a block or of the jump cache
/// names the ops that were put there for it.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// Room for the ops of all blocks, `PIECES` times `PIECE`, which never moves. Its length stays
    /// 0: ops are put there and reached by pointers alone, so that none of these outdates another.
    store: Vec<Op>,
    /// Where the next op goes.
    next: usize,
    /// Keys of the blocks in each piece, in the order of the pieces.
    pieces: Vec<Vec<u64>>,
    by_phys: HashMap<u64, Block, BuildHasherDefault<KeyHasher>>,
    jumps: Box<[Jump; JUMPS]>,
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            store: Vec::with_capacity(PIECES * PIECE),
            next: 0,
            pieces: vec![Vec::new(); PIECES],
            by_phys: HashMap::default(),
            jumps: match vec![NO_JUMP; JUMPS].into_boxed_slice().try_into() {
                Ok(jumps) => jumps,
                Err(_) => unreachable!("the length is the array's"),
            },
        }
    }
}

/// The key of code at a physical place, decoded in a mode.
#[must_use]
pub(crate) fn phys_key(phys: u64, offset: u64, mode: Mode) -> u64 {
    phys | (offset & 0xfff) | u64::from(mode.bits()) << 56
}

impl Blocks {
    #[cfg_attr(
        not(test),
        expect(clippy::cast_possible_truncation, reason = "the low half is all that is used")
    )]
    #[inline(always)]
    fn slot(la: u64) -> usize {
        ((la as u32).wrapping_mul(JUMP_FACTOR) >> JUMP_FACTOR_SHIFT) as usize
    }

    /// The fresh block at linear address `la`, if the jump cache knows it under one of two keys, which is
    /// about to run once more.
    #[inline(always)]
    #[must_use]
    pub(crate) fn jump(&mut self, la: u64, key: u64, global_key: u64) -> Option<Run> {
        let jump = &mut self.jumps[Self::slot(la)];
        jump.leads_to(la, key, global_key).then(|| {
            jump.heat = jump.heat.wrapping_add(1);
            jump.run()
        })
    }

    /// The same of a block that does not run as a whole.
    #[must_use]
    pub(crate) fn known(&self, la: u64, key: u64, global_key: u64) -> Option<Run> {
        let jump = &self.jumps[Self::slot(la)];
        jump.leads_to(la, key, global_key).then(|| jump.run())
    }

    /// What to run of a block.
    #[must_use]
    pub(crate) fn run(&self, block: &Block) -> Run {
        let ops = NonNull::slice_from_raw_parts(self.place(block.start), block.count as usize);
        Run { ops, phys: block.source.phys, code: block.code, heat: block.heat }
    }

    /// Where the store has an op.
    fn place(&self, start: u32) -> NonNull<Op> {
        debug_assert!((start as usize) < self.store.capacity());
        // SAFETY: `keep` gave the place, within the room of the store, whose address is not null.
        unsafe { NonNull::new_unchecked(self.store.as_ptr().add(start as usize).cast_mut()) }
    }

    /// The ops to run, in order.
    ///
    /// # Safety
    ///
    /// This value made the run, of a block that it gave, or gave it for a jump.
    #[inline(always)]
    #[must_use]
    pub(crate) unsafe fn ops(&self, run: Run) -> &[Op] {
        // SAFETY: the caller says that the ops are in the store, which got all its room when it was
        // made, so that it does not move. What `keep` has put into a place of it stays or is
        // replaced by other ops as long as this value lives, by `&mut self` alone. A place, rather
        // than an index, saves a multiplication before each block.
        unsafe { run.ops.as_ref() }
    }

    /// Remembers that `la` leads to `block` under `key`. `changes` was [`code_changes`] before the
    /// block was found to be fresh.
    pub(crate) fn remember(&mut self, la: u64, key: u64, block: &Block, changes: u32) {
        let ops = self.run(block).ops.cast();
        let slot = &mut self.jumps[Self::slot(la)];
        let heat = if (slot.la, slot.ops) == (la, ops) { slot.heat } else { block.heat };
        *slot = Jump {
            la,
            key,
            code: block.code.filter(|_| may_translate(la)),
            changes,
            count: block.count,
            ops,
            phys: block.source.phys,
            heat,
        };
    }

    /// The jump cache's first entry.
    pub(crate) fn jumps(&self) -> *const Jump {
        self.jumps.as_ptr()
    }

    /// Notes the translation of a block, for all that lead to it from now on.
    ///
    /// # Safety
    ///
    /// `code` is what the processor's translator made of the block, and stays valid until
    /// [`Blocks::forget_translations`].
    pub(crate) unsafe fn translated(&mut self, key: u64, la: u64, code: NonNull<u8>) {
        if let Some(block) = self.by_phys.get_mut(&key) {
            block.code = Some(code);
        }
        let jump = &mut self.jumps[Self::slot(la)];
        if jump.la == la {
            jump.code = Some(code);
        }
    }

    /// Drops all places of translated code.
    pub(crate) fn forget_translations(&mut self) {
        self.by_phys.values_mut().for_each(|block| (block.code, block.heat) = (None, 0));
        self.jumps.iter_mut().for_each(|jump| (jump.code, jump.heat) = (None, 0));
    }

    /// The fresh block decoded from a physical place.
    #[must_use]
    pub(crate) fn find(&self, key: u64) -> Option<Block> {
        self.by_phys.get(&key).filter(|block| block.is_fresh()).copied()
    }

    /// As [`Blocks::find`], to run it.
    pub(crate) fn find_to_run(&mut self, key: u64) -> Option<Block> {
        let block = self.by_phys.get_mut(&key).filter(|block| block.is_fresh())?;
        block.heat = block.heat.wrapping_add(1);
        Some(*block)
    }

    /// Adds a block, in place of a stale one with the same key. A stale block's ops stay where they
    /// are until their piece is dropped.
    pub(crate) fn insert(
        &mut self,
        key: u64,
        ops: &[Op],
        source: Source,
        second: Option<Source>,
    ) -> Block {
        let start = self.keep(ops);
        let len = ops.last().map_or(0, |op| usize::from(op.offset) + usize::from(op.len));
        #[cfg_attr(
            not(test),
            expect(clippy::cast_possible_truncation, reason = "the store has 2^20 ops")
        )]
        let (start, count) = (start as u32, ops.len() as u32);
        let block = Block { start, count, len, source, second, code: None, heat: 0 };
        self.pieces[start as usize / PIECE].push(key);
        self.by_phys.insert(key, block);
        block
    }

    /// Puts the ops of a block into one piece of the store: where they begin.
    fn keep(&mut self, ops: &[Op]) -> usize {
        let here = self.next / PIECE % PIECES;
        let room = PIECE - self.next % PIECE;
        let start = if ops.len() <= room { self.next } else { (here + 1) % PIECES * PIECE };
        if start.is_multiple_of(PIECE) {
            self.drop_piece(start / PIECE);
        }
        for ahead in 1..PIECES {
            if self.by_phys.len() >= BLOCKS {
                self.drop_piece((here + ahead) % PIECES);
            }
        }
        assert!(start + ops.len() <= self.store.capacity(), "a block ends in its piece");
        // SAFETY: there is room, and `ops` is not in the store, which nobody can borrow meanwhile.
        unsafe {
            let to = self.store.as_mut_ptr().add(start);
            to.copy_from_nonoverlapping(ops.as_ptr(), ops.len());
        }
        self.next = (start + ops.len()) % (PIECES * PIECE);
        start
    }

    /// Drops the blocks of a piece, and what leads to them.
    fn drop_piece(&mut self, piece: usize) {
        let mut keys = std::mem::take(&mut self.pieces[piece]);
        if keys.is_empty() {
            return;
        }
        let inside = |start: u32| start as usize / PIECE == piece;
        for key in keys.drain(..) {
            // A block may have been decoded again since, into another piece.
            if self.by_phys.get(&key).is_some_and(|block| inside(block.start)) {
                self.by_phys.remove(&key);
            }
        }
        self.pieces[piece] = keys;
        let store = self.store.as_ptr().addr();
        let piece_of = |jump: &Jump| (jump.ops.addr().get() - store) / (PIECE * size_of::<Op>());
        for jump in self.jumps.iter_mut().filter(|jump| jump.key != 0 && piece_of(jump) == piece) {
            *jump = NO_JUMP;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::Features;
    use crate::lower::lower;
    use crate::phys::CodeTrack;

    /// The ops of NOPs and a jump to itself.
    fn ops(nops: usize) -> Vec<Op> {
        let code = [&vec![0x90; nops][..], &[0xeb, 0xfe]].concat();
        let mut ops = Vec::new();
        lower(&code, Mode::code64(), &Features::default(), false, &mut ops);
        ops
    }

    /// A block like no other: its first op has `number` as its immediate.
    fn numbered(ops: &mut [Op], number: u64) -> &[Op] {
        ops[0].imm = number;
        ops
    }

    fn source() -> Source {
        static TRACK: CodeTrack = CodeTrack::new();
        Source { phys: 0x1000, track: Tracker::of(&TRACK), generation: 0 }
    }

    #[test]
    fn blocks_and_jumps_lead_to_their_own_ops_or_nowhere_however_many_come() {
        for (nops, inserted) in [(0, 5 * BLOCKS), (30, PIECES * PIECE / 8)] {
            let (mut blocks, mut ops) = (Blocks::default(), ops(nops));
            // SAFETY: the same blocks made the run.
            let number = |blocks: &Blocks, run: Run| unsafe { blocks.ops(run) }[0].imm;
            for n in 1..=inserted as u64 {
                let block = blocks.insert(n << 12, numbered(&mut ops, n), source(), None);
                blocks.remember(n << 12, n, &block, code_changes());
            }

            let found: Vec<u64> = (1..=inserted as u64)
                .filter(|n| {
                    let block = blocks.find(n << 12);
                    let jump = blocks.jump(n << 12, *n, *n);
                    assert!(jump.is_none_or(|run| number(&blocks, run) == *n), "{n}");
                    block.is_some_and(|block| number(&blocks, blocks.run(&block)) == *n)
                })
                .collect();

            assert_eq!(found.len(), blocks.by_phys.len(), "{nops}");
            assert_eq!(found.last(), Some(&(inserted as u64)));
            assert!(found.is_sorted() && found[found.len() - 1] - found[0] < found.len() as u64);
        }
    }

    #[test]
    fn the_memory_of_blocks_is_bounded() {
        for nops in [0, 38] {
            let (mut blocks, ops) = (Blocks::default(), ops(nops));
            let room = blocks.store.capacity();

            for n in 0..3 * BLOCKS as u64 {
                blocks.insert(n << 12, &ops, source(), None);
            }

            assert!(blocks.by_phys.len() <= BLOCKS, "{nops}");
            assert!(blocks.by_phys.capacity() <= 2 * BLOCKS, "{nops}");
            assert_eq!((blocks.store.capacity(), room), (PIECES * PIECE, PIECES * PIECE));
        }
    }

    #[test]
    fn a_block_that_was_decoded_again_outlives_the_piece_of_its_first_ops() {
        let (mut blocks, mut ops) = (Blocks::default(), ops(30));
        let per_piece = (PIECE / ops.len()) as u64;
        blocks.insert(7, numbered(&mut ops, 1), source(), None);
        for n in 1..per_piece * PIECES as u64 - 4 {
            blocks.insert(n << 12, &ops, source(), None);
        }
        blocks.insert(7, numbered(&mut ops, 2), source(), None);

        for n in 1..per_piece {
            blocks.insert(n << 40, &ops, source(), None);
        }

        let block = blocks.find(7).expect("the block is kept");
        // SAFETY: the same blocks made the run.
        assert_eq!(unsafe { blocks.ops(blocks.run(&block)) }[0].imm, 2);
        assert!(blocks.find(1 << 12).is_none(), "the piece was dropped");
    }
}
