//! The quoting enclave of a software platform: an identity for which REPORTs are made, and which whoever
//! has the platform's secrets answers for.
//!
//! It has no code. Its MRENCLAVE is the digest of a text, which no sequence of ECREATE, EADD and
//! EEXTEND gives (they hash blocks of 64 bytes that begin with their names), so no enclave of a guest
//! can get its REPORT key. Its MRSIGNER is made in the same way.

use cloister_sgx::layout::{Report, TargetInfo};
use cloister_sgx::{AttributeFlags, Attributes, PlatformFuses};
use sha2::{Digest as _, Sha256};
use zerocopy::FromZeros as _;

/// Its ISVPRODID, as Intel's has it.
pub const ISVPRODID: u16 = 1;
/// Its ISVSVN.
pub const ISVSVN: u16 = 1;
/// The attributes of Intel's.
pub const ATTRIBUTES: AttributeFlags =
    AttributeFlags::INIT.union(AttributeFlags::MODE64BIT).union(AttributeFlags::PROVISIONKEY);
/// x87 and SSE.
const XFRM: u64 = 3;

/// Its MRENCLAVE.
#[must_use]
pub fn mrenclave() -> [u8; 32] {
    Sha256::digest("Cloister development quoting enclave").into()
}

/// Its MRSIGNER.
#[must_use]
pub fn mrsigner() -> [u8; 32] {
    Sha256::digest("Cloister development quoting enclave's signer").into()
}

/// QE ID: its identifier on `platform`, by which a provisioning service knows the platform.
#[must_use]
pub fn id(platform: &PlatformFuses) -> [u8; 16] {
    platform.manufacturer_key("attestation QE ID")
}

/// TARGETINFO with which an enclave makes a REPORT that is to be quoted.
#[must_use]
pub fn target_info() -> TargetInfo {
    TargetInfo {
        measurement: mrenclave(),
        attributes: Attributes::new(ATTRIBUTES, XFRM),
        ..TargetInfo::new_zeroed()
    }
}

/// What EREPORT would say of it on `platform`, without a MAC: who signs it has no need of one.
pub(crate) fn report(platform: &PlatformFuses, reportdata: [u8; 64]) -> Report {
    Report {
        cpusvn: platform.cpusvn,
        attributes: Attributes::new(ATTRIBUTES, XFRM),
        mrenclave: mrenclave(),
        mrsigner: mrsigner(),
        isvprodid: ISVPRODID.into(),
        isvsvn: ISVSVN.into(),
        reportdata,
        ..Report::new_zeroed()
    }
}
