//! The seam to a virtual processor whose leaf exited.

use cloister_sgx::EnclsRegs;
use cloister_x86::{Exception, Gpa, Gva};

/// Why guest memory could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestFault {
    /// The guest's own fault: inject it.
    Exception(Exception),
    /// The host could not tell now: run the instruction again.
    Retry,
}

/// A virtual processor, stopped at an ENCLS that exited.
///
/// Accesses are supervisor data accesses by the guest's current page tables.
pub trait GuestCpu {
    /// The operands of the leaf.
    fn operands(&self) -> EnclsRegs;

    /// The linear address of `len` bytes at effective address `ea` in DS. In 64-bit mode that is
    /// `ea` itself, else the low half of `ea` plus the base of DS.
    ///
    /// # Errors
    ///
    /// #GP(0) if it is not canonical, or outside the segment; also without paging and for a
    /// segment that expands down, which ENCLS checks only after it may have exited (SDM Vol. 2,
    /// ENCLS).
    fn linear(&mut self, ea: u64, len: u64) -> Result<Gva, GuestFault>;

    /// Translates a guest virtual address; the offset in the page stays.
    ///
    /// # Errors
    ///
    /// The page fault of the access.
    fn translate(&mut self, gva: Gva, write: bool) -> Result<Gpa, GuestFault>;

    /// Reads guest-virtual memory, once. EPC reads as all ones.
    ///
    /// # Errors
    ///
    /// The page fault of the access.
    fn read(&mut self, gva: Gva, out: &mut [u8]) -> Result<(), GuestFault>;

    /// Whether an event is pending that EINIT must give way to.
    fn event_pending(&mut self) -> bool;
}
