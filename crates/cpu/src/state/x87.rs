//! The x87 registers (SDM Vol. 1, 8.1).

use cloister_float::{Class, Env, F80, Format};

/// An 80-bit register: what FSTP m80 stores. MMX registers are the mantissas.
pub(crate) use cloister_float::F80 as Reg80;

/// Bits of the status word (SDM Vol. 1, 8.1.3), apart from the exception flags.
pub(crate) mod status {
    /// The six exception flags.
    pub(crate) const EXCEPTIONS: u16 = 0x3f;
    /// Invalid operation.
    pub(crate) const IE: u16 = 1 << 0;
    /// Stack fault.
    pub(crate) const SF: u16 = 1 << 6;
    /// Error summary: an unmasked exception is pending.
    pub(crate) const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub(crate) const C0: u16 = 1 << 8;
    /// Condition code 1.
    pub(crate) const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub(crate) const C2: u16 = 1 << 10;
    /// Condition code 3.
    pub(crate) const C3: u16 = 1 << 14;
    /// All condition codes.
    pub(crate) const CONDITIONS: u16 = C0 | C1 | C2 | C3;
    /// Busy: mirrors ES.
    pub(crate) const B: u16 = 1 << 15;
    /// TOP, three bits.
    pub(crate) const TOP_SHIFT: u32 = 11;
}

/// What FNINIT puts in the control word.
const INITIAL_CONTROL: u16 = 0x37f;
/// Bits of the control word that can be written; bit 6 reads as one.
const CONTROL_WRITABLE: u16 = 0x1f3f;
const CONTROL_FIXED: u16 = 0x40;

/// x87 state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// R0 to R7, the physical registers; ST(i) is `regs[(top + i) & 7]`.
    pub regs: [Reg80; 8],
    /// Control word.
    pub control: u16,
    /// Status word without TOP (bits 13:11), which is `top`.
    pub status: u16,
    /// Top of stack, 0 to 7.
    pub top: u8,
    /// Bit n: Rn is not empty (the abridged tag word of FXSAVE).
    pub tags: u8,
    /// Last instruction opcode, 11 bits: that of the last instruction with an unmasked exception
    /// (SDM Vol. 1, 8.1.9.1).
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last data pointer: that of the last instruction with an unmasked exception
    /// (CPUID.(7,0):EBX.FDP_EXCPTN_ONLY).
    pub fdp: u64,
}

impl Default for Fpu {
    fn default() -> Self {
        // After power-up reset (SDM Vol. 3A, table 9-1); FNINIT leaves 037FH instead.
        Self {
            regs: [Reg80::ZERO; 8],
            control: 0x40,
            status: 0,
            top: 0,
            tags: 0xff,
            fop: 0,
            fip: 0,
            fdp: 0,
        }
    }
}

impl Fpu {
    /// Number of the physical register that is ST(`i`).
    #[inline(always)]
    #[must_use]
    pub(crate) const fn physical(&self, i: u8) -> usize {
        (self.top.wrapping_add(i) & 7) as usize
    }

    /// Whether ST(`i`) is tagged empty.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn is_empty(&self, i: u8) -> bool {
        self.tags >> self.physical(i) & 1 == 0
    }

    /// ST(`i`), whatever its tag.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn st(&self, i: u8) -> F80 {
        self.regs[self.physical(i)]
    }

    /// Writes ST(`i`) and tags it valid.
    #[inline(always)]
    pub(crate) fn set_st(&mut self, i: u8, value: F80) {
        let physical = self.physical(i);
        self.regs[physical] = value;
        self.tags |= 1 << physical;
    }

    /// Tags ST(`i`) empty.
    #[inline(always)]
    pub(crate) fn free(&mut self, i: u8) {
        self.tags &= !(1 << self.physical(i));
    }

    /// Decrements TOP and writes the new ST(0).
    #[inline(always)]
    pub(crate) fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set_st(0, value);
    }

    /// Tags ST(0) empty and increments TOP.
    #[inline(always)]
    pub(crate) fn pop(&mut self) {
        self.free(0);
        self.top = self.top.wrapping_add(1) & 7;
    }

    /// Rounding, precision and masks of the control word; no flag set.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn env(&self) -> Env {
        Env::x87(self.control)
    }

    /// The status word with TOP.
    #[must_use]
    pub const fn status_word(&self) -> u16 {
        self.status | (self.top as u16) << status::TOP_SHIFT
    }

    /// Writes the status word; ES and B follow from the exception flags and their masks.
    pub fn set_status_word(&mut self, value: u16) {
        self.top = (value >> status::TOP_SHIFT & 7) as u8;
        self.status = value & !(7 << status::TOP_SHIFT);
        self.summarize();
    }

    /// Writes the control word; exceptions that it unmasks become pending.
    pub(crate) fn set_control_word(&mut self, value: u16) {
        self.control = value & CONTROL_WRITABLE | CONTROL_FIXED;
        self.summarize();
    }

    /// Recomputes ES and B.
    pub(crate) fn summarize(&mut self) {
        let pending = self.status & !self.control & status::EXCEPTIONS != 0;
        self.status &= !(status::ES | status::B);
        if pending {
            self.status |= status::ES | status::B;
        }
    }

    /// Replaces the condition codes in `mask`.
    #[inline(always)]
    pub(crate) fn set_conditions(&mut self, mask: u16, conditions: u16) {
        self.status = self.status & !mask | conditions;
    }

    /// The tag word of FNSTENV: two bits for each physical register.
    #[must_use]
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, n| {
            let tag = if self.tags >> n & 1 == 0 {
                3
            } else {
                let value = self.regs[n];
                match value.unpack().class {
                    Class::Zero => 1,
                    Class::Finite if value.biased() != 0 => 0,
                    _ => 2,
                }
            };
            word | tag << (2 * n)
        })
    }

    /// Takes emptiness from a tag word in the form of FNSTENV; its other distinctions do not
    /// count (SDM Vol. 2, FLDENV).
    pub fn set_tag_word(&mut self, word: u16) {
        self.tags = (0..8).fold(0, |tags, n| {
            let empty = word >> (2 * n) & 3 == 3;
            tags | u8::from(!empty) << n
        });
    }

    /// FNINIT: the registers keep their contents.
    pub(crate) fn init(&mut self) {
        *self = Self { regs: self.regs, control: INITIAL_CONTROL, tags: 0, ..Self::default() };
    }
}
