//! REPORT, TARGETINFO and KEYREQUEST (SDM Vol. 3D, 35.15 to 35.17).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::attributes::Attributes;

/// REPORT: the output of EREPORT. 512-byte aligned.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Report {
    /// CPUSVN.
    pub cpusvn: [u8; 16],
    /// MISCSELECT.
    pub miscselect: U32,
    /// CET_ATTRIBUTES.
    pub cet_attributes: u8,
    /// Zero.
    pub reserved1: [u8; 11],
    /// ISVEXTPRODID.
    pub isvextprodid: [u8; 16],
    /// ATTRIBUTES.
    pub attributes: Attributes,
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// Zero.
    pub reserved2: [u8; 32],
    /// MRSIGNER.
    pub mrsigner: [u8; 32],
    /// Zero.
    pub reserved3: [u8; 32],
    /// CONFIGID.
    pub configid: [u8; 64],
    /// ISVPRODID.
    pub isvprodid: U16,
    /// ISVSVN.
    pub isvsvn: U16,
    /// CONFIGSVN.
    pub configsvn: U16,
    /// Zero.
    pub reserved4: [u8; 42],
    /// ISVFAMILYID.
    pub isvfamilyid: [u8; 16],
    /// REPORTDATA.
    pub reportdata: [u8; 64],
    /// KEYID.
    pub keyid: [u8; 32],
    /// MAC over the first 384 bytes.
    pub mac: [u8; 16],
}

const _: () = assert!(size_of::<Report>() == 432);

impl Report {
    /// Bytes that the MAC covers.
    pub const MACED: usize = 384;
}

/// TARGETINFO: the enclave for which EREPORT makes a report. 512-byte aligned.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TargetInfo {
    /// MEASUREMENT: MRENCLAVE of the target.
    pub measurement: [u8; 32],
    /// ATTRIBUTES of the target.
    pub attributes: Attributes,
    /// CET_ATTRIBUTES of the target; reserved while CET is not supported.
    pub cet_attributes: u8,
    /// Must be zero.
    pub reserved1: u8,
    /// CONFIGSVN of the target.
    pub configsvn: U16,
    /// MISCSELECT of the target.
    pub miscselect: U32,
    /// Must be zero.
    pub reserved2: [u8; 8],
    /// CONFIGID of the target.
    pub configid: [u8; 64],
    /// Must be zero.
    pub reserved3: [u8; 384],
}

const _: () = assert!(size_of::<TargetInfo>() == 512);

/// Values of KEYREQUEST.KEYNAME (SDM Vol. 3D, table 35-24).
pub mod key_name {
    /// EINITTOKEN_KEY.
    pub const EINITTOKEN: u16 = 0;
    /// PROVISION_KEY.
    pub const PROVISION: u16 = 1;
    /// PROVISION_SEAL_KEY.
    pub const PROVISION_SEAL: u16 = 2;
    /// REPORT_KEY.
    pub const REPORT: u16 = 3;
    /// SEAL_KEY.
    pub const SEAL: u16 = 4;
}

bitflags! {
    /// KEYREQUEST.KEYPOLICY (SDM Vol. 3D, table 35-25).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct KeyPolicy: u16 {
        /// MRENCLAVE.
        const MRENCLAVE = 1 << 0;
        /// MRSIGNER.
        const MRSIGNER = 1 << 1;
        /// NOISVPRODID.
        const NOISVPRODID = 1 << 2;
        /// CONFIGID.
        const CONFIGID = 1 << 3;
        /// ISVFAMILYID.
        const ISVFAMILYID = 1 << 4;
        /// ISVEXTPRODID.
        const ISVEXTPRODID = 1 << 5;
    }
}

/// KEYREQUEST: the operand of EGETKEY. 512-byte aligned.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct KeyRequest {
    /// KEYNAME: see [`key_name`].
    pub keyname: U16,
    /// KEYPOLICY: [`KeyPolicy`].
    pub keypolicy: U16,
    /// ISVSVN.
    pub isvsvn: U16,
    /// CET_ATTRIBUTES_MASK; reserved while CET is not supported.
    pub cet_attributes_mask: u8,
    /// Must be zero.
    pub reserved1: u8,
    /// CPUSVN.
    pub cpusvn: [u8; 16],
    /// ATTRIBUTEMASK.
    pub attributemask: Attributes,
    /// KEYID.
    pub keyid: [u8; 32],
    /// MISCMASK.
    pub miscmask: U32,
    /// CONFIGSVN.
    pub configsvn: U16,
    /// Must be zero.
    pub reserved2: [u8; 434],
}

const _: () = assert!(size_of::<KeyRequest>() == 512);
