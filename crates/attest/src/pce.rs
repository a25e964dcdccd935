//! The keys of Intel's provisioning certification enclave (PCE), from public source: what it would
//! derive if it ran on a platform whose secrets are known.
//!
//! Source: linux-sgx, `psw/ae/pce/pce_helper.cpp` (`get_provision_key`, `get_ppid`,
//! `get_pce_priv_key`) and `psw/ae/pce/config.xml`. So a PCE that Intel signed certifies, in a guest,
//! with the key that is certified here.

use aes::Aes128;
use cloister_sgx::layout::{KeyRequest, key_name};
use cloister_sgx::{AttributeFlags, Attributes, EnclaveIdentity, PlatformFuses, SgxStatus};
use cmac::{Cmac, KeyInit as _, Mac as _};
use crypto_bigint::{NonZero, U256, U320};
use p256::ecdsa::SigningKey;
use zerocopy::FromZeros as _;

/// MRSIGNER of the PCE (linux-sgx, `psw/ae/data/constants/linux/service_enclave_mrsigner.hh`).
pub const MRSIGNER: [u8; 32] = [
    0xc5, 0x4a, 0x62, 0xf2, 0xbe, 0x9e, 0xf7, 0x6e, 0xfb, 0x1f, 0x39, 0x30, 0xad, 0x81, 0xea, 0x7f,
    0x60, 0xde, 0xfc, 0x1f, 0x5f, 0x25, 0xe0, 0x9b, 0x7c, 0x06, 0x7a, 0x81, 0x5a, 0xe0, 0xc6, 0xcb,
];
/// ISVPRODID of the PCE.
pub const ISVPRODID: u16 = 1;
/// ISVSVN of the newest PCE whose source was read (linux-sgx 90873a0c): PCESVN of quotes made here.
pub const ISVSVN: u16 = 16;
/// The attributes of the PCE; XFRM has no part in its keys.
pub const ATTRIBUTES: AttributeFlags =
    AttributeFlags::INIT.union(AttributeFlags::MODE64BIT).union(AttributeFlags::PROVISIONKEY);
/// PCEID: the only one there is.
pub const PCEID: [u8; 2] = [0, 0];

/// n - 1, where n is the order of P-256 (FIPS 186-5, SP 800-186 3.2.1.3).
const ORDER_MINUS_1: U320 = U320::from_be_hex(
    "0000000000000000ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550",
);

/// The provisioning key of the PCE at a CPUSVN and PCESVN: `get_provision_key`.
fn provisioning_key(
    platform: &PlatformFuses,
    cpusvn: [u8; 16],
    pcesvn: u16,
) -> Result<[u8; 16], SgxStatus> {
    let enclave = EnclaveIdentity {
        mrenclave: [0; 32],
        mrsigner: MRSIGNER,
        isvprodid: ISVPRODID,
        isvsvn: pcesvn,
    };
    let request = KeyRequest {
        keyname: key_name::PROVISION.into(),
        isvsvn: pcesvn.into(),
        cpusvn,
        attributemask: Attributes {
            flags: (!AttributeFlags::MODE64BIT.bits()).into(),
            xfrm: 0.into(),
        },
        miscmask: u32::MAX.into(),
        ..KeyRequest::new_zeroed()
    };
    platform.egetkey(&enclave, Attributes::new(ATTRIBUTES, 3), &request)
}

fn cmac(key: &[u8; 16], block: &[u8; 16]) -> [u8; 16] {
    let mut cmac = Cmac::<Aes128>::new(key.into());
    cmac.update(block);
    cmac.finalize().into_bytes().into()
}

/// PPID, by which a platform is known to those who may know it: the same at every CPUSVN and PCESVN.
#[must_use]
pub fn ppid(platform: &PlatformFuses) -> [u8; 16] {
    let key = provisioning_key(platform, [0; 16], 0).expect("no SVN is beyond what a platform has");
    cmac(&key, &[0; 16])
}

/// The provisioning certification key (PCK) of a platform at a CPUSVN and PCESVN.
///
/// # Errors
/// SGX_INVALID_CPUSVN if `cpusvn` is beyond the platform's.
pub fn pck(
    platform: &PlatformFuses,
    cpusvn: [u8; 16],
    pcesvn: u16,
) -> Result<SigningKey, SgxStatus> {
    Ok(p256_key(&provisioning_key(platform, cpusvn, pcesvn)?))
}

/// A P-256 key from 128 secret bits: `get_pce_priv_key`, from the provisioning key on.
pub(crate) fn p256_key(seed: &[u8; 16]) -> SigningKey {
    // PAK Seed: the upper 320 bits of three blocks, as a big-endian number.
    let blocks = [1, 2, 3].map(|counter| {
        let mut block = *b"\0PAK_KEY_DER\0\0\x01\x40";
        block[0] = counter;
        cmac(seed, &block)
    });
    let seed = U320::from_be_slice(&blocks.concat()[..40]);
    let modulus = NonZero::new(ORDER_MINUS_1).expect("n - 1 is not 0");
    let scalar: U256 = seed.rem(&modulus).wrapping_add(&U320::ONE).resize();
    SigningKey::from_slice(scalar.to_be_bytes().as_ref()).expect("1 to n - 1 is a private key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(byte: u8) -> PlatformFuses {
        PlatformFuses {
            root_key: [byte; 16],
            seal_fuses: [1; 16],
            owner_epoch: [2; 16],
            cpusvn: [2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// Reproduced with a second implementation, in Python, of `get_pce_priv_key`.
    #[test]
    fn a_seed_gives_the_key_that_the_pce_makes_of_it() {
        let seed = core::array::from_fn(|at| u8::try_from(at).unwrap());

        let key = p256_key(&seed);

        let expected = "49F96A0FA2027B416E641C07353FCD62DED815E9C2AA1D0C13DD40539A1CB0CA";
        assert_eq!(crate::hex::upper(&key.to_bytes()), expected);
    }

    #[test]
    fn ppid_and_pck_outlive_an_owner_and_differ_between_platforms() {
        let own = platform(1);
        let sold = PlatformFuses { owner_epoch: [9; 16], ..own.clone() };
        let svn = own.cpusvn;

        assert_eq!(ppid(&own), ppid(&sold));
        assert_ne!(ppid(&own), ppid(&platform(2)));
        assert_eq!(pck(&own, svn, 16), pck(&sold, svn, 16));
        assert_ne!(pck(&own, svn, 16), pck(&platform(2), svn, 16));
    }

    #[test]
    fn each_cpusvn_and_pcesvn_has_its_pck_and_newer_ones_have_none() {
        let platform = platform(1);
        let (now, mut older, mut newer) = (platform.cpusvn, platform.cpusvn, platform.cpusvn);
        older[0] -= 1;
        newer[4] += 1;

        assert_ne!(pck(&platform, now, 16), pck(&platform, now, 15));
        assert_ne!(pck(&platform, now, 16), pck(&platform, older, 16));
        assert_eq!(pck(&platform, newer, 16).unwrap_err(), SgxStatus::InvalidCpuSvn);
    }
}
