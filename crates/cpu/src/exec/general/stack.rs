//! The stack (SDM Vol. 1, chapter 6): the accesses that instructions make to it implicitly.

use cloister_x86::segment::seg;
use cloister_x86::{Gpr, Vector};

use crate::cpu::Cpu;
use crate::exit::{Exec, Stop};
use crate::mem::tlb::AccessKind;
use crate::mem::{Int, Plain};

impl Cpu {
    /// Writes SP, ESP or RSP, whichever the stack uses (SDM Vol. 1, 6.2.3). ESP clears the upper
    /// half of RSP; SP leaves the rest.
    #[inline(always)]
    pub(crate) fn set_stack_pointer(&mut self, value: u64) {
        self.arch.gpr[Gpr::Rsp] = self.with_stack_width(self.arch.gpr[Gpr::Rsp], value);
    }

    /// `value` in the bits that the stack uses, the rest from `old`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn with_stack_width(&self, old: u64, value: u64) -> u64 {
        match self.run.mode.stack_size() {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => (old & !0xffff) | (value & 0xffff),
        }
    }

    /// Ones in the bits of the stack pointer that the stack uses.
    #[inline(always)]
    #[must_use]
    pub(crate) fn stack_mask(&self) -> u64 {
        match self.run.mode.stack_size() {
            8 => u64::MAX,
            4 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// Reads from the stack at `offset` in SS; bits of `offset` above the stack's width are
    /// ignored.
    ///
    /// # Errors
    ///
    /// #SS(0) where SS does not allow the access or the address is not canonical; else as
    /// [`Cpu::load`].
    #[inline(always)]
    pub(crate) fn stack_load<T: Plain>(&mut self, offset: u64) -> Exec<T> {
        let la = self.stack_linear(offset, T::SIZE, AccessKind::Read)?;
        match self.load(la) {
            Err(stop) => Err(self.stack_stop(stop)),
            value => value,
        }
    }

    /// Writes to the stack at `offset` in SS; bits of `offset` above the stack's width are
    /// ignored. The stack pointer does not move.
    ///
    /// # Errors
    ///
    /// As [`Cpu::stack_load`] and [`Cpu::store`].
    #[inline(always)]
    pub(crate) fn stack_store<T: Plain>(&mut self, offset: u64, value: T) -> Exec {
        let la = self.stack_linear(offset, T::SIZE, AccessKind::Write)?;
        match self.store(la, value) {
            Err(stop) => Err(self.stack_stop(stop)),
            done => done,
        }
    }

    /// Linear address of stack bytes at `offset` in SS.
    ///
    /// # Errors
    ///
    /// #SS(0) where SS does not allow the access.
    #[inline(always)]
    pub(crate) fn stack_linear(&mut self, offset: u64, size: usize, kind: AccessKind) -> Exec<u64> {
        if self.run.mode.is_64() {
            return Ok(offset);
        }
        self.segmented(seg::SS, offset & self.stack_mask(), size, kind)
    }

    /// Turns the #GP(0) of a non-canonical stack address into #SS(0) (SDM Vol. 1, 3.3.7.1).
    #[cold]
    #[inline(never)]
    pub(crate) fn stack_stop(&mut self, stop: Stop) -> Stop {
        if stop == Stop::FAULT
            && self.run.non_canonical_fault
            && let Some(fault) = &mut self.run.fault
        {
            fault.vector = Vector::Ss;
            self.run.non_canonical_fault = false;
        }
        stop
    }

    /// Pushes a value of 2, 4 or 8 bytes: the stack pointer moves once the value is stored. An
    /// instruction that pushes several values and may fault on the second one uses
    /// [`Cpu::stack_store`] and moves the stack pointer at its end.
    ///
    /// # Errors
    ///
    /// As [`Cpu::stack_store`]; nothing has changed then.
    #[inline(always)]
    pub(crate) fn push<T: Int>(&mut self, value: T) -> Exec {
        let top = self.arch.gpr[Gpr::Rsp].wrapping_sub(T::SIZE as u64);
        self.stack_store(top, value)?;
        self.set_stack_pointer(top);
        Ok(())
    }

    /// Pops a value of 2, 4 or 8 bytes. An instruction that pops several values or checks what it
    /// popped reads them with [`Cpu::stack_load`] and moves the stack pointer at its end.
    ///
    /// # Errors
    ///
    /// As [`Cpu::stack_load`]; nothing has changed then.
    #[inline(always)]
    pub(crate) fn pop<T: Int>(&mut self) -> Exec<T> {
        let value = self.stack_load(self.arch.gpr[Gpr::Rsp])?;
        self.set_stack_pointer(self.arch.gpr[Gpr::Rsp].wrapping_add(T::SIZE as u64));
        Ok(value)
    }
}
