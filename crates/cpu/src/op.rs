//! The compact form of a decoded instruction.
#![cfg_attr(
    not(test),
    expect(clippy::cast_possible_truncation, reason = "takes parts out of one field")
)]

use iced_x86::Mnemonic;

use crate::cpu::Cpu;
use crate::exit::Exec;

/// Executes one op. See the crate documentation for the rules.
///
/// The ABI is that of C, on x86-64 Linux the System V ABI, so that generated code can call it: the
/// processor in RDI, the op in RSI, and what [`Exec`] says in AL.
pub(crate) type Handler = extern "C" fn(&mut Cpu, &Op) -> Exec;

/// The [`Handler`] that a body makes.
macro_rules! handler {
    (|$cpu:ident, $op:ident| $body:expr) => {{
        extern "C" fn run($cpu: &mut $crate::cpu::Cpu, $op: &$crate::op::Op) -> $crate::exit::Exec {
            $body
        }
        run as $crate::op::Handler
    }};
}
pub(crate) use handler;

/// Register slot that always holds zero: the base or index of an address that has none.
pub(crate) const ZERO_SLOT: u8 = 16;
/// Register slot that holds RIP at the start of the block that runs: the base of
/// RIP-relative operands, whose displacement the lowering makes relative to the block.
pub(crate) const BLOCK_SLOT: u8 = 17;
/// [`Op::special`]: the address is not simply base + index * scale + displacement in 64 bits.
pub(crate) const MEM_SPECIAL: u8 = 1 << 0;
/// [`Op::special`]: the address is truncated to 32 bits.
pub(crate) const MEM_ADDR32: u8 = 1 << 1;
/// [`Op::special`]: the address is truncated to 16 bits.
pub(crate) const MEM_ADDR16: u8 = 1 << 2;
/// [`Op::special`]: the segment's base is added and, outside 64-bit mode, its limit and type are
/// checked.
pub(crate) const MEM_SEGMENT: u8 = 1 << 3;

/// [`Op::prefix`]: LOCK.
pub(crate) const LOCK: u8 = 1 << 0;
/// [`Op::prefix`]: REP or REPE.
pub(crate) const REPE: u8 = 1 << 1;
/// [`Op::prefix`]: REPNE.
pub(crate) const REPNE: u8 = 1 << 2;

/// [`Op::vex`]: no VEX prefix. Legacy SSE instructions keep bits 255:128 of a register.
pub(crate) const LEGACY: u8 = 0;
/// [`Op::vex`]: a VEX prefix and vectors of 128 bits, or scalars. A result clears bits 255:128.
pub(crate) const VEX_128: u8 = 1;
/// [`Op::vex`]: a VEX prefix and vectors of 256 bits.
pub(crate) const VEX_256: u8 = 2;

/// One decoded instruction, ready to run. 48 bytes.
///
/// Operand conventions, set by [`crate::lower`]: `dst` is the register of operand 0 and `src` the
/// register of operand 1 where these are registers (numbers 0 to 15; an 8-bit high register AH,
/// CH, DH, BH is 4 to 7 with [`Op::high`] bit 0 for `dst`, bit 1 for `src`; its low register is
/// that number minus 4); `third` is the register of operand 2. (Vector instructions have them in an
/// order of their own.) The immediate, sign- or zero-extended as the instruction does, is `imm`; a
/// near branch has its target relative to the block's start in `imm`. `mem_operand` says which
/// operand is memory.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What it executes: the instruction's name, or [`Mnemonic::INVALID`] for what is not an
    /// instruction of the processor, and for the op that ends a block.
    pub mnemonic: Mnemonic,
    /// The function that executes it.
    pub(crate) run: Handler,
    /// Immediate, or branch target relative to the start of the block.
    pub(crate) imm: u64,
    /// Displacement, sign-extended; relative to the block's start for RIP-relative operands.
    pub(crate) disp: u64,
    /// Base register slot, [`ZERO_SLOT`] or [`BLOCK_SLOT`].
    pub(crate) base: u8,
    /// Index register slot or [`ZERO_SLOT`].
    pub(crate) index: u8,
    /// Shift of the index: 0 to 3.
    pub(crate) scale: u8,
    /// Segment of the memory operand (an index into [`ArchState::segs`](crate::ArchState::segs)),
    /// also for string instructions' source.
    pub(crate) seg: u8,
    /// `MEM_*` bits; 0 for a plain 64-bit address.
    pub(crate) special: u8,
    /// Register number of operand 0.
    pub(crate) dst: u8,
    /// Register number of operand 1.
    pub(crate) src: u8,
    /// Register number of operand 2.
    pub(crate) third: u8,
    /// Bit 0: `dst` is a high byte register; bit 1: `src` is.
    pub(crate) high: u8,
    /// [`LOCK`], [`REPE`], [`REPNE`].
    pub(crate) prefix: u8,
    /// Operand size in bytes (general-purpose instructions), 2, 4 or 8; 1 for byte operations.
    pub(crate) size: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub(crate) addr_size: u8,
    /// Operand number of the memory operand, or [`NO_MEMORY`].
    pub(crate) mem_operand: u8,
    /// Length of the instruction in bytes, 1 to 15 (0 for the op that ends a block).
    pub(crate) len: u8,
    /// Offset of the instruction from the start of its block, in bytes.
    pub offset: u16,
    /// [`LEGACY`], [`VEX_128`] or [`VEX_256`].
    pub(crate) vex: u8,
    /// What the instruction needs besides: the methods of [`Op`] name what [`crate::lower`] and
    /// vector instructions keep here, functions and constants of a family what its rows do.
    pub(crate) extra: u32,
}

impl Op {
    /// Selector of a far branch whose target is an immediate.
    #[must_use]
    pub(crate) const fn far_selector(&self) -> u16 {
        self.extra as u16
    }

    /// Second immediate of ENTER: the nesting level, of which the low five bits count.
    #[must_use]
    pub(crate) const fn nesting_level(&self) -> u32 {
        self.extra & 31
    }

    /// Register number of operand 3 of a vector instruction; XMM0, which has no operand, for the
    /// legacy SSE blends.
    #[must_use]
    pub(crate) const fn fourth(&self) -> u8 {
        self.extra as u8
    }
}

const _: () = assert!(size_of::<Op>() == 48);

/// [`Op::mem_operand`] of an instruction without a memory operand.
pub(crate) const NO_MEMORY: u8 = 0xff;
