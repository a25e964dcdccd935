//! SIGSTRUCT and EINITTOKEN (SDM Vol. 3D, 35.13 and 35.14).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::attributes::Attributes;

/// SIGSTRUCT: the enclave's signature. 4 KiB aligned.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SigStruct {
    /// HEADER.
    pub header: [u8; 16],
    /// VENDOR: 8086H or 0.
    pub vendor: U32,
    /// DATE, yyyymmdd in BCD.
    pub date: U32,
    /// HEADER2.
    pub header2: [u8; 16],
    /// SWDEFINED.
    pub swdefined: U32,
    /// Must be zero.
    pub reserved1: [u8; 84],
    /// MODULUS, little-endian.
    pub modulus: [u8; 384],
    /// EXPONENT: 3.
    pub exponent: U32,
    /// SIGNATURE, little-endian.
    pub signature: [u8; 384],
    /// MISCSELECT.
    pub miscselect: U32,
    /// MISCMASK.
    pub miscmask: U32,
    /// CET_ATTRIBUTES; reserved while CET is not supported.
    pub cet_attributes: u8,
    /// CET_ATTRIBUTES_MASK; reserved while CET is not supported.
    pub cet_attributes_mask: u8,
    /// Must be zero.
    pub reserved2: [u8; 2],
    /// ISVFAMILYID.
    pub isvfamilyid: [u8; 16],
    /// ATTRIBUTES.
    pub attributes: Attributes,
    /// ATTRIBUTEMASK.
    pub attributemask: Attributes,
    /// ENCLAVEHASH.
    pub enclavehash: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 16],
    /// ISVEXTPRODID.
    pub isvextprodid: [u8; 16],
    /// ISVPRODID.
    pub isvprodid: U16,
    /// ISVSVN.
    pub isvsvn: U16,
    /// Must be zero.
    pub reserved4: [u8; 12],
    /// Q1, little-endian.
    pub q1: [u8; 384],
    /// Q2, little-endian.
    pub q2: [u8; 384],
}

const _: () = assert!(size_of::<SigStruct>() == 1808);

impl SigStruct {
    /// The value of HEADER.
    pub const HEADER: [u8; 16] = [6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    /// The value of HEADER2.
    pub const HEADER2: [u8; 16] = [1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0];

    /// The two parts that the signature covers, in order.
    #[must_use]
    pub fn signed_parts(&self) -> [&[u8]; 2] {
        let bytes = self.as_bytes();
        [&bytes[..128], &bytes[900..1028]]
    }
}

/// EINITTOKEN: a launch enclave's permission. 512-byte aligned.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EinitToken {
    /// VALID: bit 0; the others are reserved.
    pub valid: U32,
    /// Must be zero.
    pub reserved1: [u8; 44],
    /// ATTRIBUTES of the enclave.
    pub attributes: Attributes,
    /// MRENCLAVE of the enclave.
    pub mrenclave: [u8; 32],
    /// Must be zero.
    pub reserved2: [u8; 32],
    /// MRSIGNER of the enclave.
    pub mrsigner: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 32],
    /// CPUSVNLE: CPUSVN of the launch enclave.
    pub cpusvnle: [u8; 16],
    /// ISVPRODIDLE: ISVPRODID of the launch enclave.
    pub isvprodidle: U16,
    /// ISVSVNLE: ISVSVN of the launch enclave.
    pub isvsvnle: U16,
    /// CET_MASKED_ATTRIBUTES_LE; reserved while CET is not supported.
    pub cet_masked_attributes_le: u8,
    /// Must be zero.
    pub reserved4: [u8; 23],
    /// MASKEDMISCSELECTLE.
    pub maskedmiscselectle: U32,
    /// MASKEDATTRIBUTESLE.
    pub maskedattributesle: Attributes,
    /// KEYID.
    pub keyid: [u8; 32],
    /// MAC over the first 192 bytes.
    pub mac: [u8; 16],
}

const _: () = assert!(size_of::<EinitToken>() == 304);

impl EinitToken {
    /// Bytes that the MAC covers.
    pub const MACED: usize = 192;

    /// A token that is not valid: what a loader passes when launch control does not need one.
    #[must_use]
    pub fn none() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}
