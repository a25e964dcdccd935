//! The registers of a logical processor that enclave entry and exit read and replace.

/// Index of RAX in [`ProcessorState::gpr`], and so on in the order of the instruction encoding.
pub const RAX: usize = 0;
/// Index of RCX.
pub const RCX: usize = 1;
/// Index of RDX.
pub const RDX: usize = 2;
/// Index of RBX.
pub const RBX: usize = 3;
/// Index of RSP.
pub const RSP: usize = 4;
/// Index of RBP.
pub const RBP: usize = 5;
/// Index of RSI.
pub const RSI: usize = 6;
/// Index of RDI.
pub const RDI: usize = 7;

/// A segment register with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes (already scaled by G).
    pub limit: u32,
    /// Access rights in the format of the VMCS (SDM Vol. 3C, 24.4.1): type in bits 3:0, S bit 4,
    /// DPL bits 6:5, P bit 7, AVL bit 12, L bit 13, D/B bit 14, G bit 15, unusable bit 16.
    pub rights: u32,
}

impl Segment {
    /// Access rights: type bit 1, writable (data segments).
    pub const WRITABLE: u32 = 1 << 1;
    /// Access rights: type bit 2, expand-down (data segments).
    pub const EXPAND_DOWN: u32 = 1 << 2;
    /// Access rights: type bit 3, code segment.
    pub const CODE: u32 = 1 << 3;
    /// Access rights: S, a code or data segment.
    pub const S: u32 = 1 << 4;
    /// Access rights: DPL.
    pub const DPL: u32 = 3 << 5;
    /// Access rights: P, present.
    pub const P: u32 = 1 << 7;
    /// Access rights: AVL.
    pub const AVL: u32 = 1 << 12;
    /// Access rights: L, 64-bit code.
    pub const L: u32 = 1 << 13;
    /// Access rights: D/B.
    pub const DB: u32 = 1 << 14;
    /// Access rights: G.
    pub const G: u32 = 1 << 15;
    /// Access rights: the segment is unusable (null selector).
    pub const UNUSABLE: u32 = 1 << 16;

    /// Whether the segment is usable.
    #[must_use]
    pub const fn usable(&self) -> bool {
        self.rights & Self::UNUSABLE == 0
    }
}

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
