//! PAGEINFO, SECINFO, PCMD and RDINFO (SDM Vol. 3D, 35.10 to 35.12 and 35.20).

use bitflags::bitflags;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::epcm::{EpcmFlags, PageType};

/// PAGEINFO: the operand of the leaves that put pages into an enclave. 32-byte aligned.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct PageInfo {
    /// LINADDR: enclave linear address of the page.
    pub linaddr: U64,
    /// SRCPGE: effective address of the page contents.
    pub srcpge: U64,
    /// SECINFO or PCMD: effective address of the page's metadata.
    pub secinfo: U64,
    /// SECS: effective address of the enclave's SECS.
    pub secs: U64,
}

bitflags! {
    /// SECINFO.FLAGS without the page type (SDM Vol. 3D, 35.11.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SecInfoFlags: u64 {
        /// R.
        const R = 1 << 0;
        /// W.
        const W = 1 << 1;
        /// X.
        const X = 1 << 2;
        /// PENDING.
        const PENDING = 1 << 3;
        /// MODIFIED.
        const MODIFIED = 1 << 4;
        /// PR.
        const PR = 1 << 5;
    }
}

/// SECINFO: the security attributes of a page. 64-byte aligned.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SecInfo {
    /// FLAGS: [`SecInfoFlags`] and, in bits 15:8, the page type.
    pub flags: U64,
    /// Must be zero.
    pub reserved: [u8; 56],
}

impl SecInfo {
    /// A SECINFO with these flags and this page type.
    #[must_use]
    pub const fn new(flags: SecInfoFlags, page_type: PageType) -> Self {
        Self { flags: U64::new(flags.bits() | (page_type as u64) << 8), reserved: [0; 56] }
    }

    /// FLAGS.PAGE_TYPE, if it is a defined one.
    #[must_use]
    pub const fn page_type(&self) -> Option<PageType> {
        PageType::from_u8((self.flags.get() >> 8) as u8)
    }

    /// R, W and X as EPCM flags.
    #[must_use]
    pub const fn permissions(&self) -> EpcmFlags {
        EpcmFlags::from_bits_truncate(self.flags.get() as u32 & 7)
    }

    /// Whether `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: SecInfoFlags) -> bool {
        self.flags.get() & flag.bits() == flag.bits()
    }

    /// Whether all fields that are reserved in every use of SECINFO are zero: FLAGS bits 7:6 and
    /// 63:16 and the reserved bytes.
    #[must_use]
    pub fn reserved_is_zero(&self) -> bool {
        self.flags.get() & !0xff3f == 0 && self.reserved.iter().all(|&byte| byte == 0)
    }
}

/// PCMD: what EWB stores beside an evicted page. 128-byte aligned.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Pcmd {
    /// SECINFO of the evicted page.
    pub secinfo: SecInfo,
    /// ENCLAVEID: the EID of its enclave.
    pub enclaveid: U64,
    /// Must be zero.
    pub reserved: [u8; 40],
    /// MAC over page, metadata and version.
    pub mac: [u8; 16],
}

const _: () = assert!(size_of::<Pcmd>() == 128);

bitflags! {
    /// RDINFO.STATUS (SDM Vol. 3D, 35.20.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RdInfoStatus: u64 {
        /// CHILDPRESENT: the SECS has child pages.
        const CHILDPRESENT = 1 << 0;
        /// VIRTCHLDPRESENT: the SECS has virtual child pages.
        const VIRTCHLDPRESENT = 1 << 1;
    }
}

/// RDINFO: the output of ERDINFO. 32-byte aligned.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RdInfo {
    /// STATUS: [`RdInfoStatus`].
    pub status: U64,
    /// FLAGS: as [`SecInfo::flags`], and [`BLOCKED`](Self::BLOCKED).
    pub flags: U64,
    /// ENCLAVECONTEXT of the page's SECS, or of the SECS that it is.
    pub enclavecontext: U64,
}

const _: () = assert!(size_of::<RdInfo>() == 24);

impl RdInfo {
    /// FLAGS.BLOCKED.
    pub const BLOCKED: u64 = 1 << 63;
}
