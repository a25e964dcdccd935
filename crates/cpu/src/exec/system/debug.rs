//! Debug exceptions (SDM Vol. 3B, chapter 17) and alignment checks.

use crate::exit::Exit;
use crate::mem::tlb::AccessKind;
use crate::state::{Cpu, Exec, attention};

impl Cpu {
    /// What comes before a data access that takes the slow path: #AC where alignment is checked,
    /// and the match with data breakpoints.
    ///
    /// # Errors
    ///
    /// #AC(0).
    pub fn check_access(&mut self, _la: u64, _len: usize, _kind: AccessKind) -> Exec {
        Ok(())
    }
}

/// #DB for an instruction breakpoint at the next instruction, unless RF is set.
///
/// # Errors
///
/// #DB.
pub fn check_instruction_breakpoint(_cpu: &mut Cpu) -> Exec {
    Ok(())
}

/// A single-step trap is due before the next instruction.
pub fn pend_single_step(cpu: &mut Cpu) {
    cpu.attention |= attention::DEBUG_TRAP;
}

/// Delivers the debug trap that is due.
///
/// # Errors
///
/// An exit that delivery caused.
pub fn deliver_trap(cpu: &mut Cpu) -> Result<(), Exit> {
    cpu.attention &= !attention::DEBUG_TRAP;
    Ok(())
}
