//! Effective and linear addresses of memory operands (SDM Vol. 1, 3.7.5; Vol. 3A, 5.3).

use cloister_x86::segment::seg;
use cloister_x86::{Exception, Vector};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::mem::{Int, Plain};
use crate::op::{MEM_ADDR16, MEM_ADDR32, MEM_SEGMENT, Op};

/// Ones in the bits of an effective address that the address size keeps.
#[inline(always)]
#[must_use]
pub(crate) fn address_mask(op: &Op) -> u64 {
    match op.special & (MEM_ADDR32 | MEM_ADDR16) {
        0 => u64::MAX,
        MEM_ADDR32 => 0xffff_ffff,
        _ => 0xffff,
    }
}

impl Cpu {
    /// Base + index * scale + displacement, before it is cut to the address size.
    #[inline(always)]
    fn address_sum(&self, op: &Op) -> u64 {
        self.arch.gpr[usize::from(op.base & 31)]
            .wrapping_add(self.arch.gpr[usize::from(op.index & 31)] << (op.scale & 3))
            .wrapping_add(op.disp)
    }

    /// Effective address: the offset in the segment.
    #[inline(always)]
    #[must_use]
    pub(crate) fn effective(&self, op: &Op) -> u64 {
        self.address_sum(op) & address_mask(op)
    }

    /// Linear address of the memory operand, for an access of `size` bytes.
    ///
    /// # Errors
    ///
    /// #GP(0) or #SS(0) outside 64-bit mode where the segment forbids the access.
    #[inline(always)]
    pub(crate) fn linear(&mut self, op: &Op, size: usize, kind: AccessKind) -> Exec<u64> {
        let sum = self.address_sum(op);
        if op.special == 0 {
            return Ok(sum);
        }
        self.linear_special(op, sum, size, kind)
    }

    /// As [`Cpu::linear`], with `more` added to the effective address before it is cut to the
    /// address size.
    ///
    /// # Errors
    ///
    /// As [`Cpu::linear`].
    #[inline(always)]
    pub(crate) fn linear_plus(
        &mut self,
        op: &Op,
        more: u64,
        size: usize,
        kind: AccessKind,
    ) -> Exec<u64> {
        let sum = self.address_sum(op).wrapping_add(more);
        if op.special == 0 {
            return Ok(sum);
        }
        self.linear_special(op, sum, size, kind)
    }

    /// Linear address of the part of a memory operand that lies `more` bytes after its beginning:
    /// it does not wrap at the address size.
    ///
    /// # Errors
    ///
    /// As [`Cpu::linear`].
    #[inline(always)]
    pub(crate) fn linear_within(
        &mut self,
        op: &Op,
        more: u64,
        size: usize,
        kind: AccessKind,
    ) -> Exec<u64> {
        let offset = self.effective(op).wrapping_add(more);
        if op.special & MEM_SEGMENT == 0 {
            return Ok(offset);
        }
        self.segmented(usize::from(op.seg), offset, size, kind)
    }

    /// As [`Cpu::linear`], for an operand that has to lie at a multiple of `alignment`, a power of
    /// two. #GP(0) of the alignment comes before a fault of the segment.
    ///
    /// # Errors
    ///
    /// #GP(0) where it does not, and as [`Cpu::linear`].
    #[inline(always)]
    pub(crate) fn linear_at_multiple(
        &mut self,
        op: &Op,
        alignment: u64,
        size: usize,
        kind: AccessKind,
    ) -> Exec<u64> {
        let sum = self.address_sum(op);
        let base = if op.special == 0 { 0 } else { self.segment_base(op) };
        // The address size keeps the low bits.
        if sum.wrapping_add(base) & (alignment - 1) != 0 {
            return Err(self.gp(0));
        }
        if op.special == 0 { Ok(sum) } else { self.linear_special(op, sum, size, kind) }
    }

    /// What the segment adds to the effective address.
    fn segment_base(&self, op: &Op) -> u64 {
        let segment = usize::from(op.seg);
        let flat = self.run.mode.is_64() && !matches!(segment, seg::FS | seg::GS);
        if flat { 0 } else { self.arch.segs[segment & 7].base }
    }

    #[inline(never)]
    fn linear_special(&mut self, op: &Op, sum: u64, size: usize, kind: AccessKind) -> Exec<u64> {
        let offset = sum & address_mask(op);
        if op.special & MEM_SEGMENT == 0 {
            return Ok(offset);
        }
        self.segmented(usize::from(op.seg), offset, size, kind)
    }

    /// Linear address of `offset` in a segment, for an access of `size` bytes.
    ///
    /// # Errors
    ///
    /// As [`Cpu::linear`].
    #[inline(always)]
    pub(crate) fn segmented(
        &mut self,
        segment: usize,
        offset: u64,
        size: usize,
        kind: AccessKind,
    ) -> Exec<u64> {
        if self.run.mode.is_64() {
            return Ok(if matches!(segment, seg::FS | seg::GS) {
                self.arch.segs[segment & 7].base.wrapping_add(offset)
            } else {
                offset
            });
        }
        self.segmented_legacy(segment, offset, size, kind)
    }

    #[inline(never)]
    fn segmented_legacy(
        &mut self,
        segment: usize,
        offset: u64,
        size: usize,
        kind: AccessKind,
    ) -> Exec<u64> {
        let register = self.arch.segs[segment & 7];
        let rights = register.rights;
        let last = offset.wrapping_add(size as u64).wrapping_sub(1);
        let in_limit = if !rights.is_code() && rights.bit_ec() {
            // Expand-down: offsets above the limit are valid (SDM Vol. 3A, 5.3).
            let top = if rights.big() { 0xffff_ffff } else { 0xffff };
            offset > u64::from(register.limit) && last <= top && last >= offset
        } else {
            // An access that crosses the end of 4 GiB may or may not fault: it wraps here.
            last <= u64::from(register.limit) && last >= offset || register.limit == u32::MAX
        };
        // Code segments are never writable; data segments are always readable.
        let typed = match kind {
            AccessKind::Write => !rights.is_code() && rights.bit_rw(),
            AccessKind::Execute => true,
            AccessKind::Read => !rights.is_code() || rights.bit_rw(),
        };
        let protected = self.arch.cr0.contains(cloister_x86::regs::Cr0::PE);
        if rights.unusable() || !in_limit || (protected && !typed) {
            let vector = if segment == seg::SS { Vector::Ss } else { Vector::Gp };
            return Err(self.raise(Exception::with_code(vector, 0)));
        }
        Ok(register.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Reads the memory operand.
    ///
    /// # Errors
    ///
    /// As [`Cpu::linear`] and [`Cpu::load`].
    #[inline(always)]
    pub(crate) fn load_operand<T: Plain>(&mut self, op: &Op) -> Exec<T> {
        let la = self.linear(op, T::SIZE, AccessKind::Read)?;
        self.load(la)
    }

    /// Writes the memory operand.
    ///
    /// # Errors
    ///
    /// As [`Cpu::linear`] and [`Cpu::store`].
    #[inline(always)]
    pub(crate) fn store_operand<T: Plain>(&mut self, op: &Op, value: T) -> Exec {
        let la = self.linear(op, T::SIZE, AccessKind::Write)?;
        self.store(la, value)
    }

    /// [`Cpu::load_operand`] of the common kind: a plain address in a page that the TLB knows.
    #[inline(always)]
    pub(super) fn quick_operand<T: Plain>(&self, op: &Op) -> Option<T> {
        let la = self.address_sum(op);
        if op.special != 0 {
            return None;
        }
        self.quick_load(la)
    }

    /// [`Cpu::store_operand`] of the common kind.
    #[inline(always)]
    pub(super) fn quick_store_operand<T: Plain>(&mut self, op: &Op, value: T) -> bool {
        let la = self.address_sum(op);
        op.special == 0 && self.quick_store(la, value)
    }

    /// Replaces the memory operand by `f` of it and returns the old value, in the common case.
    #[inline(always)]
    pub(super) fn quick_modify_operand<T: Plain>(
        &mut self,
        op: &Op,
        f: impl FnOnce(T) -> T,
    ) -> Option<T> {
        let la = self.address_sum(op);
        if op.special != 0 {
            return None;
        }
        self.quick_modify(la, f)
    }

    /// Reads operand 1: the register, or memory where `MEMORY`.
    ///
    /// # Errors
    ///
    /// As [`Cpu::load_operand`].
    #[inline(always)]
    pub(crate) fn source<T: Int, const MEMORY: bool>(&mut self, op: &Op) -> Exec<T> {
        if MEMORY { self.load_operand(op) } else { Ok(self.src(op)) }
    }
}
