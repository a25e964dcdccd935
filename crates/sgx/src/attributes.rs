//! ATTRIBUTES and MISCSELECT of an enclave (SDM Vol. 3D, 35.7.1 and 35.7.2).

use bitflags::bitflags;
pub use cloister_x86::cpuid::MISCSELECT_EXINFO;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// The low quadword of ATTRIBUTES (SDM Vol. 3D, table 35-3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct AttributeFlags: u64 {
        /// INIT: set by EINIT.
        const INIT = 1 << 0;
        /// DEBUG: EDBGRD and EDBGWR may access the enclave.
        const DEBUG = 1 << 1;
        /// MODE64BIT: the enclave runs in 64-bit mode.
        const MODE64BIT = 1 << 2;
        /// PROVISIONKEY: the provisioning keys are available from EGETKEY.
        const PROVISIONKEY = 1 << 4;
        /// EINITTOKEN_KEY: the EINITTOKEN key is available from EGETKEY.
        const EINITTOKEN_KEY = 1 << 5;
        /// CET: the CET attributes are in use.
        const CET = 1 << 6;
        /// KSS: key separation and sharing.
        const KSS = 1 << 7;
        /// AEXNOTIFY: threads of the enclave may ask to be notified of AEXs.
        const AEXNOTIFY = 1 << 10;
    }
}

/// ATTRIBUTES as it lies in memory: flags and XFRM.
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
pub struct Attributes {
    /// Flag bits, [`AttributeFlags`].
    pub flags: U64,
    /// XFRM: the XSAVE features that the enclave uses.
    pub xfrm: U64,
}

impl Attributes {
    /// ATTRIBUTES with these flags and XFRM.
    #[must_use]
    pub const fn new(flags: AttributeFlags, xfrm: u64) -> Self {
        Self { flags: U64::new(flags.bits()), xfrm: U64::new(xfrm) }
    }

    /// The known flag bits.
    #[must_use]
    pub const fn known_flags(self) -> AttributeFlags {
        AttributeFlags::from_bits_truncate(self.flags.get())
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn has(self, flags: AttributeFlags) -> bool {
        self.known_flags().contains(flags)
    }

    /// Bitwise AND of flags and XFRM.
    #[must_use]
    pub const fn and(self, mask: Self) -> Self {
        Self {
            flags: U64::new(self.flags.get() & mask.flags.get()),
            xfrm: U64::new(self.xfrm.get() & mask.xfrm.get()),
        }
    }
}
