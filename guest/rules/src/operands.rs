//! Operands of ECREATE and EINIT in memory, by address (SDM vol. 3D, 34.7 to 34.14).

use core::ptr;

const PAGE: usize = 4096;
/// Where SIGSTRUCT has the signer's modulus.
const MODULUS: core::ops::Range<usize> = 128..512;

/// A field of SECS: offset and bytes.
#[derive(Clone, Copy)]
pub(crate) enum SecsField {
    Size,
    MiscSelect,
    Attributes,
    Xfrm,
}

/// The contents of an SECS.
#[derive(Clone)]
pub(crate) struct Secs([u8; PAGE]);

impl Secs {
    /// Bytes of ELRANGE; xtask/src/enclave.rs says the same.
    pub(crate) const SIZE: u64 = 0x1_0000;

    /// Of an enclave in 64-bit mode with x87 and SSE, which has no other rights.
    pub(crate) fn valid() -> Self {
        let mut secs = Self([0; PAGE]);
        // SSAFRAMESIZE
        secs.0[16] = 1;
        secs.with(SecsField::Size, Self::SIZE)
            .with(SecsField::Attributes, 4)
            .with(SecsField::Xfrm, 3)
    }

    /// The same but for a field.
    pub(crate) fn with(mut self, field: SecsField, value: u64) -> Self {
        let (at, bytes) = match field {
            SecsField::Size => (0, 8),
            SecsField::MiscSelect => (20, 4),
            SecsField::Attributes => (48, 8),
            SecsField::Xfrm => (56, 8),
        };
        self.0[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        self
    }
}

#[repr(C, align(4096))]
struct Page([u8; PAGE]);
#[repr(C, align(512))]
struct Token([u8; 512]);
#[repr(C, align(64))]
struct Secinfo([u8; 64]);
#[repr(C, align(32))]
struct PageInfo([u64; 4]);

/// What leaves are given the addresses of, which hold while it stays where it is.
pub(crate) struct Operands {
    secs: Page,
    sigstruct: Page,
    zeros: Page,
    token: Token,
    secinfo: Secinfo,
    page_info: PageInfo,
}

impl Operands {
    pub(crate) fn new(secs: &Secs) -> Self {
        Self {
            secs: Page(secs.0),
            sigstruct: Page([0; PAGE]),
            zeros: Page([0; PAGE]),
            token: Token([0; 512]),
            secinfo: Secinfo([0; 64]),
            page_info: PageInfo([0; 4]),
        }
    }

    pub(crate) fn secs(&self) -> u64 {
        address(&self.secs)
    }

    pub(crate) fn secinfo(&self) -> u64 {
        address(&self.secinfo)
    }

    pub(crate) fn zeros(&self) -> u64 {
        address(&self.zeros)
    }

    /// PAGEINFO for the SECS.
    pub(crate) fn page_info(&mut self) -> u64 {
        self.page_info_of(self.secs(), self.secinfo())
    }

    /// PAGEINFO for another source and SECINFO.
    pub(crate) fn page_info_of(&mut self, source: u64, secinfo: u64) -> u64 {
        self.page_info = PageInfo([0, source, secinfo, 0]);
        address(&self.page_info)
    }

    /// SIGSTRUCT and an EINITTOKEN that is not valid.
    pub(crate) fn for_einit(&mut self, sigstruct: &[u8]) -> (u64, u64) {
        let length = sigstruct.len().min(PAGE);
        self.sigstruct.0[..length].copy_from_slice(&sigstruct[..length]);
        (address(&self.sigstruct), address(&self.token))
    }

    /// The modulus of SIGSTRUCT, whose SHA-256 is MRSIGNER.
    pub(crate) fn modulus(&self) -> &[u8] {
        &self.sigstruct.0[MODULUS]
    }
}

fn address<T>(operand: &T) -> u64 {
    ptr::from_ref(operand).expose_provenance() as u64
}
