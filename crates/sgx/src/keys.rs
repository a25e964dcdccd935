//! Key derivation (SDM Vol. 3D, 36.4.3, and EGETKEY).

use aes::Aes128;
use cmac::{Cmac, KeyInit as _, Mac as _};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::attributes::Attributes;
use crate::identity::PlatformFuses;

/// A 128-bit key.
pub(crate) type Key = [u8; 16];

/// The padding that every valid signature of SIGSTRUCT has, as the upper 352 bytes of the encoded
/// message: 00 01, 330 bytes of FFH, 00, and the DigestInfo of SHA-256 (SDM Vol. 3D, EINIT,
/// HARDCODED_PKCS1_5_PADDING).
pub(crate) const PKCS1_5_PADDING: [u8; 352] = {
    const DIGEST_INFO: [u8; 20] = [
        0x00, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
        0x01, 0x05, 0x00, 0x04, 0x20,
    ];
    let mut padding = [0xff; 352];
    padding[0] = 0x00;
    padding[1] = 0x01;
    let mut at = 0;
    while at < DIGEST_INFO.len() {
        padding[332 + at] = DIGEST_INFO[at];
        at += 1;
    }
    padding
};

/// TMP_KEYDEPENDENCIES: everything that a key depends on beside the platform's root key. Its
/// layout is the model's own; the SDM leaves it to the implementation.
#[derive(Clone, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct KeyDependencies {
    pub(crate) keyname: U16,
    pub(crate) keypolicy: U16,
    pub(crate) isvprodid: U16,
    pub(crate) isvsvn: U16,
    pub(crate) configsvn: U16,
    pub(crate) reserved: U16,
    pub(crate) miscselect: U32,
    pub(crate) miscmask: U32,
    pub(crate) attributes: Attributes,
    pub(crate) attributesmask: Attributes,
    pub(crate) sgxownerepoch: [u8; 16],
    pub(crate) seal_key_fuses: [u8; 16],
    pub(crate) cpusvn: [u8; 16],
    pub(crate) isvfamilyid: [u8; 16],
    pub(crate) isvextprodid: [u8; 16],
    pub(crate) mrenclave: [u8; 32],
    pub(crate) mrsigner: [u8; 32],
    pub(crate) keyid: [u8; 32],
    pub(crate) configid: [u8; 64],
    pub(crate) padding: [u8; 352],
}

impl KeyDependencies {
    /// A key of this name that depends on nothing else but the padding of a valid signature.
    pub(crate) fn new(keyname: u16) -> Self {
        Self {
            keyname: keyname.into(),
            keypolicy: 0.into(),
            isvprodid: 0.into(),
            isvsvn: 0.into(),
            configsvn: 0.into(),
            reserved: 0.into(),
            miscselect: 0.into(),
            miscmask: 0.into(),
            attributes: Attributes::default(),
            attributesmask: Attributes::default(),
            sgxownerepoch: [0; 16],
            seal_key_fuses: [0; 16],
            cpusvn: [0; 16],
            isvfamilyid: [0; 16],
            isvextprodid: [0; 16],
            mrenclave: [0; 32],
            mrsigner: [0; 32],
            keyid: [0; 32],
            configid: [0; 64],
            padding: PKCS1_5_PADDING,
        }
    }

    /// derivekey: the key on this platform.
    pub(crate) fn derive(&self, fuses: &PlatformFuses) -> Key {
        mac(&fuses.root_key, self.as_bytes())
    }
}

/// AES-128 CMAC of `message`.
pub(crate) fn mac(key: &Key, message: &[u8]) -> [u8; 16] {
    let mut cmac = Cmac::<Aes128>::new(key.into());
    cmac.update(message);
    cmac.finalize().into_bytes().into()
}

/// Whether CPUSVN `requested` is beyond `current`: some component of it is newer
/// (SDM Vol. 3D, 36.4.2.2).
pub(crate) fn cpusvn_beyond(requested: &[u8; 16], current: &[u8; 16]) -> bool {
    requested.iter().zip(current).any(|(requested, current)| requested > current)
}
