//! Segment registers with their hidden parts (SDM Vol. 3A, 3.4.3).

/// Indices into [`Cpu::segs`](crate::Cpu::segs), in the encoding order of the instruction set.
pub mod seg {
    /// ES.
    pub const ES: usize = 0;
    /// CS.
    pub const CS: usize = 1;
    /// SS.
    pub const SS: usize = 2;
    /// DS.
    pub const DS: usize = 3;
    /// FS.
    pub const FS: usize = 4;
    /// GS.
    pub const GS: usize = 5;
    /// Task register.
    pub const TR: usize = 6;
    /// Local descriptor table register.
    pub const LDTR: usize = 7;
}

/// Access rights of a segment, in the layout of a descriptor's second doubleword shifted right by
/// 8 (also that of VMX access rights): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15;
/// bit 16: unusable (a null selector was loaded).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights(pub u32);

impl Rights {
    /// Bit 16.
    pub const UNUSABLE: u32 = 1 << 16;

    /// Type, bits 3:0.
    #[must_use]
    pub const fn kind(self) -> u32 {
        self.0 & 0xf
    }

    /// S: a code or data segment.
    #[must_use]
    pub const fn is_code_or_data(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether it is a code segment (S and type bit 3).
    #[must_use]
    pub const fn is_code(self) -> bool {
        self.0 & 0x18 == 0x18
    }

    /// Whether a data segment is writable, or a code segment readable (type bit 1).
    #[must_use]
    pub const fn bit_rw(self) -> bool {
        self.0 & 2 != 0
    }

    /// Expand-down data, or conforming code (type bit 2).
    #[must_use]
    pub const fn bit_ec(self) -> bool {
        self.0 & 4 != 0
    }

    /// Descriptor privilege level.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }

    /// P.
    #[must_use]
    pub const fn present(self) -> bool {
        self.0 & 0x80 != 0
    }

    /// L: 64-bit code.
    #[must_use]
    pub const fn long(self) -> bool {
        self.0 & 1 << 13 != 0
    }

    /// D or B.
    #[must_use]
    pub const fn big(self) -> bool {
        self.0 & 1 << 14 != 0
    }

    /// G: the limit counts pages.
    #[must_use]
    pub const fn granular(self) -> bool {
        self.0 & 1 << 15 != 0
    }

    /// Whether accesses through it fault.
    #[must_use]
    pub const fn unusable(self) -> bool {
        self.0 & Self::UNUSABLE != 0
    }
}

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes: the last valid offset.
    pub limit: u32,
    /// Access rights.
    pub rights: Rights,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}
