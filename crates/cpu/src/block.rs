//! Blocks of decoded code and where to find them.
#![expect(unsafe_code, reason = "blocks point to their page's code tracking and to stored ops")]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

use crate::mode::Mode;
use crate::op::Op;
use crate::phys::{CodeTrack, code_changes};

/// Blocks kept before all are dropped.
const CAPACITY: usize = 1 << 16;
/// Ops in one piece of the store.
const CHUNK: usize = 1 << 12;
/// Pages that the jump cache distinguishes, and entries for each.
const JUMP_PAGES: usize = 128;
const JUMP_PER_PAGE: usize = 64;
const JUMPS: usize = JUMP_PAGES * JUMP_PER_PAGE;

/// Ops to run, valid until blocks are added or dropped.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The ops in order.
    pub ops: NonNull<[Op]>,
    /// Identity of the page: see [`Entry::phys`](crate::mem::tlb::Entry::phys).
    pub phys: u64,
}

/// Bytes of code that a block was decoded from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Identity of the page.
    pub phys: u64,
    /// Code tracking of the page.
    pub track: NonNull<CodeTrack>,
    /// Generation of the page that the bytes belong to.
    pub generation: u32,
}

impl Source {
    /// Whether the bytes are still those that were decoded.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        // SAFETY: the tracker lives as long as the physical map.
        unsafe { self.track.as_ref() }.generation() == self.generation
    }
}

/// Straight-line code, left early by branches that are taken.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The ops. The last one writes `rip`.
    ops: NonNull<[Op]>,
    source: Source,
    /// Where the one instruction of a block that crosses into another page ends.
    pub second: Option<Source>,
}

// SAFETY: a tracker lives as long as the physical map, which the processor keeps alive, and may be
// used from every thread; ops belong to the `Blocks` that holds the block.
unsafe impl Send for Block {}

impl Block {
    /// Whether the bytes are still those that were decoded.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.source.is_fresh() && self.second.is_none_or(|second| second.is_fresh())
    }

    /// Bytes of code that it was decoded from.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no block is empty")]
    pub fn len(&self) -> usize {
        // SAFETY: ops stay until blocks are dropped, and this block with them.
        let ops = unsafe { self.ops.as_ref() };
        ops.last().map_or(0, |op| usize::from(op.offset) + usize::from(op.len))
    }

    /// What to run.
    #[must_use]
    pub fn run(&self) -> Run {
        Run { ops: self.ops, phys: self.source.phys }
    }
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    la: u64,
    /// What the entry depends on; 0: an empty entry.
    key: u64,
    ops: NonNull<Op>,
    count: u32,
    /// [`code_changes`] when the block was known to be fresh.
    changes: u32,
    phys: u64,
}

// SAFETY: as for `Block`.
unsafe impl Send for Jump {}

const NO_JUMP: Jump =
    Jump { la: 0, key: 0, ops: NonNull::dangling(), count: 0, changes: 0, phys: 0 };

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
    fn write_u64(&mut self, value: u64) {
        let product =
            u128::from(self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// All decoded blocks of a processor.
#[derive(Debug)]
pub struct Blocks {
    /// Ops of all blocks, in pieces that never move.
    store: Vec<Vec<Op>>,
    count: usize,
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
            store: Vec::new(),
            count: 0,
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
pub fn phys_key(phys: u64, offset: u64, mode: Mode) -> u64 {
    phys | (offset & 0xfff) | u64::from(mode.bits()) << 56
}

impl Blocks {
    #[inline(always)]
    fn slot(la: u64) -> usize {
        let page = (la >> 12) ^ (la >> 19);
        let within = la ^ (la >> 6);
        ((page as usize & (JUMP_PAGES - 1)) * JUMP_PER_PAGE)
            | (within as usize & (JUMP_PER_PAGE - 1))
    }

    /// The fresh block at linear address `la`, if the jump cache knows it under one of two keys.
    #[inline(always)]
    #[must_use]
    pub fn jump(&self, la: u64, key: u64, global_key: u64) -> Option<Run> {
        let jump = &self.jumps[Self::slot(la)];
        (jump.la == la
            && (jump.key == key || jump.key == global_key)
            && jump.changes == code_changes())
        .then(|| Run {
            ops: NonNull::slice_from_raw_parts(jump.ops, jump.count as usize),
            phys: jump.phys,
        })
    }

    /// Remembers that `la` leads to `block` under `key`. `changes` was [`code_changes`] before the
    /// block was found to be fresh.
    pub fn remember(&mut self, la: u64, key: u64, block: &Block, changes: u32) {
        self.jumps[Self::slot(la)] = Jump {
            la,
            key,
            ops: block.ops.cast(),
            count: block.ops.len() as u32,
            changes,
            phys: block.source.phys,
        };
    }

    /// The fresh block decoded from a physical place.
    #[must_use]
    pub fn find(&self, key: u64) -> Option<Block> {
        self.by_phys.get(&key).filter(|block| block.is_fresh()).copied()
    }

    /// Adds a block, in place of a stale one with the same key. A stale block's ops stay where they
    /// are until all are dropped, because the jump cache may still point to them.
    pub fn insert(
        &mut self,
        key: u64,
        ops: &[Op],
        source: Source,
        second: Option<Source>,
    ) -> Block {
        if self.count >= CAPACITY {
            self.clear();
        }
        self.count += 1;
        let block = Block { ops: self.keep(ops), source, second };
        self.by_phys.insert(key, block);
        block
    }

    fn keep(&mut self, ops: &[Op]) -> NonNull<[Op]> {
        let full = |chunk: &Vec<Op>| chunk.capacity() - chunk.len() < ops.len();
        if self.store.last().is_none_or(full) {
            self.store.push(Vec::with_capacity(CHUNK.max(ops.len())));
        }
        let last = self.store.len() - 1;
        let chunk = &mut self.store[last];
        let start = chunk.len();
        // There is room: nothing in the chunk moves.
        chunk.extend_from_slice(ops);
        NonNull::from(&mut chunk[start..])
    }

    /// Drops every block.
    pub fn clear(&mut self) {
        self.store.clear();
        self.count = 0;
        self.by_phys.clear();
        self.jumps.fill(NO_JUMP);
    }
}
