//! Blocks of decoded code and where to find them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

use crate::mode::Mode;
use crate::op::Op;
use crate::phys::CodeTrack;

/// Blocks kept before all are dropped.
const CAPACITY: usize = 1 << 16;
/// Pages that the jump cache distinguishes, and entries for each.
const JUMP_PAGES: usize = 128;
const JUMP_PER_PAGE: usize = 64;

/// Straight-line code from one page.
#[derive(Debug)]
pub struct Block {
    /// The ops, in order. The last one writes `rip`.
    pub ops: Box<[Op]>,
    /// Identity of the page: see [`crate::mem::tlb::Entry::phys`].
    pub phys: u64,
    track: NonNull<CodeTrack>,
    generation: u32,
}

// SAFETY: the tracker lives as long as the physical map, which the processor keeps alive, and may
// be used from every thread.
#[expect(unsafe_code, reason = "blocks point to the code tracking of their page")]
unsafe impl Send for Block {}

impl Block {
    /// A block decoded under `generation` of `track`.
    #[must_use]
    pub fn new(ops: Vec<Op>, phys: u64, track: NonNull<CodeTrack>, generation: u32) -> Self {
        Self { ops: ops.into_boxed_slice(), phys, track, generation }
    }

    /// Whether the bytes are still those that were decoded.
    #[inline(always)]
    #[must_use]
    #[expect(unsafe_code, reason = "reads the tracker")]
    pub fn is_fresh(&self) -> bool {
        // SAFETY: the tracker lives as long as the physical map.
        unsafe { self.track.as_ref() }.generation() == self.generation
    }
}

/// Index of a block in [`Blocks`].
pub type BlockId = u32;

#[derive(Clone, Copy, Debug)]
struct Jump {
    rip: u64,
    /// What it depends on; 0: an empty entry.
    key: u64,
    block: BlockId,
}

const NO_JUMP: Jump = Jump { rip: 0, key: 0, block: 0 };

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
    slab: Vec<Block>,
    by_phys: HashMap<u64, BlockId, BuildHasherDefault<KeyHasher>>,
    jumps: Box<[Jump]>,
}

impl std::fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyHasher")
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            slab: Vec::new(),
            by_phys: HashMap::default(),
            jumps: vec![NO_JUMP; JUMP_PAGES * JUMP_PER_PAGE].into_boxed_slice(),
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
    fn slot(rip: u64) -> usize {
        let page = (rip >> 12) ^ (rip >> 19);
        let within = rip ^ (rip >> 6);
        ((page as usize & (JUMP_PAGES - 1)) * JUMP_PER_PAGE)
            | (within as usize & (JUMP_PER_PAGE - 1))
    }

    /// A block by its id.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, id: BlockId) -> &Block {
        &self.slab[id as usize]
    }

    /// The fresh block at linear address `rip`, if the jump cache knows it under one of two keys.
    #[inline(always)]
    #[must_use]
    pub fn jump(&self, rip: u64, key: u64, global_key: u64) -> Option<BlockId> {
        let jump = &self.jumps[Self::slot(rip)];
        (jump.rip == rip
            && (jump.key == key || jump.key == global_key)
            && self.get(jump.block).is_fresh())
        .then_some(jump.block)
    }

    /// Remembers that `rip` leads to `block` under `key`.
    pub fn remember(&mut self, rip: u64, key: u64, block: BlockId) {
        self.jumps[Self::slot(rip)] = Jump { rip, key, block };
    }

    /// The fresh block decoded from a physical place.
    #[must_use]
    pub fn find(&self, key: u64) -> Option<BlockId> {
        let id = *self.by_phys.get(&key)?;
        self.get(id).is_fresh().then_some(id)
    }

    /// Adds a block, in place of a stale one with the same key.
    pub fn insert(&mut self, key: u64, block: Block) -> BlockId {
        if let Some(&id) = self.by_phys.get(&key) {
            self.slab[id as usize] = block;
            return id;
        }
        if self.slab.len() >= CAPACITY {
            self.clear();
        }
        let id = self.slab.len() as BlockId;
        self.slab.push(block);
        self.by_phys.insert(key, id);
        id
    }

    /// Drops every block.
    pub fn clear(&mut self) {
        self.slab.clear();
        self.by_phys.clear();
        self.jumps.fill(NO_JUMP);
    }
}
