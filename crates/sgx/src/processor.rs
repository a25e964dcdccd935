//! The registers of a logical processor that enclave entry and exit read and replace.

use cloister_x86::Segment;

/// The part of a logical processor's state that EENTER, ERESUME, EEXIT, AEX and the other ENCLU
/// leaves read and write. The processor copies it in before the call and back out after a call
/// that succeeded; a call that did not leaves it unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessorState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// RIP. For a leaf: the address of the instruction after ENCLU. For an AEX: the address at
    /// which the enclave is to resume.
    pub rip: u64,
    /// RFLAGS. For an AEX: as the event would push it, so RF is already what the stack image
    /// would show.
    pub rflags: u64,
    /// CS.
    pub cs: Segment,
    /// SS.
    pub ss: Segment,
    /// DS.
    pub ds: Segment,
    /// ES.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// XCR0.
    pub xcr0: u64,
    /// Whether the processor is in 64-bit mode (IA32_EFER.LMA and CS.L).
    pub mode64: bool,
    /// CR4.OSFXSR.
    pub osfxsr: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
}
