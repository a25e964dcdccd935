//! Stacks that an instruction or an event delivery takes apart or builds, before it commits to
//! them.

use cloister_x86::Gpr;
use cloister_x86::addr::is_canonical;
use cloister_x86::segment::{Segment, seg};

use crate::cpu::Cpu;
use crate::exit::Exec;
use crate::mem::tlb::MmuMode;

/// A stack with its pointer, apart from SS:RSP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// The segment; only its limit, type and base matter, and only for pointers under 8 bytes.
    pub(crate) segment: Segment,
    /// RSP, ESP or SP.
    pub(crate) pointer: u64,
    /// Width of the pointer in bytes: 2, 4 or 8.
    pub(crate) width: u8,
    /// Rights of the accesses.
    pub(crate) mode: MmuMode,
    /// Error code of #SS.
    pub(crate) code: u32,
}

impl Stack {
    /// The stack of the code that runs.
    #[must_use]
    pub(crate) fn current(cpu: &Cpu) -> Self {
        Self {
            segment: cpu.arch.segs[seg::SS],
            pointer: cpu.arch.gpr[Gpr::Rsp],
            width: cpu.run.mode.stack_size(),
            mode: cpu.run.mmu_mode,
            code: 0,
        }
    }

    fn mask(&self) -> u64 {
        match self.width {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }

    /// Linear address of `size` bytes at the stack offset `offset`; `None` if SS forbids it.
    fn linear(&self, offset: u64, size: u64) -> Option<u64> {
        let last = offset.wrapping_add(size - 1);
        if self.width == 8 {
            return (is_canonical(offset) && is_canonical(last)).then_some(offset);
        }
        let rights = self.segment.rights;
        let limit = u64::from(self.segment.limit);
        let in_limit = if rights.bit_ec() && !rights.is_code() {
            let top = if rights.big() { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        };
        (in_limit && !rights.unusable())
            .then(|| self.segment.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Moves the pointer by `bytes`.
    pub(crate) fn skip(&mut self, bytes: u64) {
        let mask = self.mask();
        self.pointer = (self.pointer & !mask) | self.pointer.wrapping_add(bytes) & mask;
    }

    /// Pushes values of `size` bytes, the first one first.
    ///
    /// # Errors
    ///
    /// #SS with the stack's code, and as [`Cpu::write_bytes`].
    pub(crate) fn push(&mut self, cpu: &mut Cpu, size: u8, values: &[u64]) -> Exec {
        let size = u64::from(size);
        if self.width == 8 {
            // One write: a fault leaves nothing half pushed.
            let mut frame = [0u8; 64];
            let length = size as usize * values.len();
            let frame = &mut frame[..length];
            for (slot, value) in frame.chunks_exact_mut(size as usize).rev().zip(values) {
                slot.copy_from_slice(&value.to_le_bytes()[..size as usize]);
            }
            let bottom = self.pointer.wrapping_sub(length as u64);
            let Some(la) = self.linear(bottom, length as u64) else {
                return Err(cpu.ss(self.code));
            };
            cpu.write_bytes(la, frame, self.mode)?;
            self.pointer = bottom;
            return Ok(());
        }
        for value in values {
            self.skip(size.wrapping_neg());
            let Some(la) = self.linear(self.pointer & self.mask(), size) else {
                return Err(cpu.ss(self.code));
            };
            cpu.write_bytes(la, &value.to_le_bytes()[..size as usize], self.mode)?;
        }
        Ok(())
    }

    /// Pops values of `size` bytes.
    ///
    /// # Errors
    ///
    /// #SS with the stack's code, and as [`Cpu::read_bytes`].
    pub(crate) fn pop<const N: usize>(&mut self, cpu: &mut Cpu, size: u8) -> Exec<[u64; N]> {
        let mut values = [0; N];
        for value in &mut values {
            *value = self.peek(cpu, size)?;
            self.skip(u64::from(size));
        }
        Ok(values)
    }

    fn peek(&self, cpu: &mut Cpu, size: u8) -> Exec<u64> {
        let Some(la) = self.linear(self.pointer & self.mask(), u64::from(size)) else {
            return Err(cpu.ss(self.code));
        };
        let mut bytes = [0; 8];
        cpu.read_bytes(la, &mut bytes[..usize::from(size)], self.mode)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
