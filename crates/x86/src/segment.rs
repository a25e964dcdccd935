//! Segment registers with their hidden parts (SDM Vol. 3A, 3.4.3).

/// Numbers of segment registers, in the encoding order of the instruction set.
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
    /// Type bit 1: writable (data), readable (code).
    pub const RW: u32 = 1 << 1;
    /// Type bit 2: expand-down (data), conforming (code).
    pub const EC: u32 = 1 << 2;
    /// Type bit 3: code.
    pub const CODE: u32 = 1 << 3;
    /// S: a code or data segment.
    pub const S: u32 = 1 << 4;
    /// DPL.
    pub const DPL: u32 = 3 << 5;
    /// P: present.
    pub const P: u32 = 1 << 7;
    /// AVL.
    pub const AVL: u32 = 1 << 12;
    /// L: 64-bit code.
    pub const L: u32 = 1 << 13;
    /// D/B.
    pub const DB: u32 = 1 << 14;
    /// G: the limit counts pages.
    pub const G: u32 = 1 << 15;
    /// The segment is unusable.
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

    /// Whether it is a segment that can be read: data, or readable code.
    #[must_use]
    pub const fn readable(self) -> bool {
        self.is_code_or_data() && (!self.is_code() || self.bit_rw())
    }

    /// Whether it is a segment that can be written: writable data.
    #[must_use]
    pub const fn writable(self) -> bool {
        self.is_code_or_data() && !self.is_code() && self.bit_rw()
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

impl Segment {
    /// A segment from 0 to 4 GiB.
    #[must_use]
    pub const fn flat(selector: u16, rights: Rights) -> Self {
        Self { selector, base: 0, limit: u32::MAX, rights }
    }

    /// The segment as an 8-byte descriptor (SDM Vol. 3A, figure 3-8).
    #[must_use]
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.rights.granular() { self.limit >> 12 } else { self.limit } as u64;
        (limit & 0xffff)
            | (self.base & 0xff_ffff) << 16
            | (self.rights.0 as u64 & 0xf0ff) << 40
            | (limit & 0xf_0000) << 32
            | (self.base & 0xff00_0000) << 32
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_flat_segments_are_those_that_kernels_write() {
        for (rights, descriptor) in [
            (0xc09b, 0x00cf_9b00_0000_ffff),
            (0xa09b, 0x00af_9b00_0000_ffff),
            (0xc093, 0x00cf_9300_0000_ffff),
        ] {
            assert_eq!(Segment::flat(0x10, Rights(rights)).descriptor(), descriptor);
        }
        let task = Segment { selector: 0x20, base: 0x1234_5678, limit: 0x67, rights: Rights(0x8b) };
        assert_eq!(task.descriptor(), 0x1200_8b34_5678_0067);
    }
}
