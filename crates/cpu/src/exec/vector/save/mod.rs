//! Saving and restoring state: FXSAVE, XSAVE and their relatives, and MXCSR
//! (SDM Vol. 1, 10.5 and chapter 13).

pub(crate) mod area;
pub(crate) mod fxsave;
pub(crate) mod image;
pub(crate) mod mxcsr;
pub(crate) mod xrstor;
pub(crate) mod xsave;

use crate::cpu::Cpu;
use crate::exec::table::Row;
use crate::exit::Exec;
use crate::mem::tlb::AccessKind;
use crate::op::Op;

/// The rows of instructions that save or restore state, by family.
pub(in crate::exec) const FAMILIES: &[&[Row]] =
    &[mxcsr::ROWS, fxsave::ROWS, xsave::ROWS, xrstor::ROWS];

impl Cpu {
    /// Linear address of an area of `size` bytes, which has to begin at a multiple of `to`. Its
    /// first four bytes are looked at before its alignment, and the limit of the segment for the
    /// rest of it afterwards, as Intel processors do.
    fn area_address(&mut self, op: &Op, to: u64, size: usize, kind: AccessKind) -> Exec<u64> {
        let la = self.linear(op, 4, kind)?;
        self.check_area(la, to)?;
        self.linear(op, size, kind)
    }

    /// Checks that an area may begin at `la`: #GP(0) where that is not canonical or not a multiple
    /// of `to`. Where alignment is checked, #AC(0) takes its place for some addresses, which the
    /// manual leaves open (SDM Vol. 2A, FXSAVE); for Intel processors those that are not multiples
    /// of 4.
    fn check_area(&mut self, la: u64, to: u64) -> Exec {
        self.check_canonical(la)?;
        if la & (to - 1) == 0 {
            return Ok(());
        }
        self.check_alignment(la, 4)?;
        Err(self.gp(0))
    }
}
