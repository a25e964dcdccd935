//! The secrets of a platform: fuse keys, owner epoch, CPUSVN and per-boot keys.

use std::fs::File;
use std::io::Read as _;

use sha2::{Digest as _, Sha256};

/// What makes one platform different from every other (SDM Vol. 3D, 36.4.2.2 and 36.4.3, and
/// the package-scope CREGs of table 38-5).
#[derive(Clone)]
pub struct PlatformIdentity {
    /// What outlives a boot.
    pub fuses: PlatformFuses,
    /// CR_REPORT_KEYID: drawn at each boot of the platform.
    pub report_keyid: [u8; 32],
    /// The key of evicted pages: drawn at each boot of the platform.
    pub paging_key: [u8; 16],
}

/// The part of a [`PlatformIdentity`] that outlives a boot: what fuses, the owner and microcode
/// give a platform. Everything that an enclave seals depends on it.
#[derive(Clone, PartialEq, Eq)]
pub struct PlatformFuses {
    /// The device key that every derived key has as its root (CR_BASE_PK and the root
    /// provisioning key in one).
    pub root_key: [u8; 16],
    /// CR_SEAL_FUSES.
    pub seal_fuses: [u8; 16],
    /// CR_SGXOWNEREPOCH.
    pub owner_epoch: [u8; 16],
    /// CR_CPUSVN: each byte is the security version of one component.
    pub cpusvn: [u8; 16],
}

impl PlatformFuses {
    /// Those of a platform that never existed before, with the current security version.
    ///
    /// # Errors
    /// If the host's random source cannot be read.
    pub fn draw() -> std::io::Result<Self> {
        let [root_key, seal_fuses, owner_epoch] = random::<3>()?;
        Ok(Self { root_key, seal_fuses, owner_epoch, cpusvn: CPUSVN })
    }

    /// The platform from one boot to the next: with keys of its own for what does not outlive it.
    ///
    /// # Errors
    /// If the host's random source cannot be read.
    pub fn boot(&self) -> std::io::Result<PlatformIdentity> {
        let [paging_key, low, high] = random::<3>()?;
        let mut report_keyid = [0; 32];
        report_keyid[..16].copy_from_slice(&low);
        report_keyid[16..].copy_from_slice(&high);
        Ok(PlatformIdentity { fuses: self.clone(), report_keyid, paging_key })
    }
}

impl core::fmt::Debug for PlatformFuses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The rest is secret.
        f.debug_struct("PlatformFuses").field("cpusvn", &self.cpusvn).finish_non_exhaustive()
    }
}

/// The security version of this model: of its first three components.
const CPUSVN: [u8; 16] = [2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Keys from the host's random source.
fn random<const N: usize>() -> std::io::Result<[[u8; 16]; N]> {
    let mut keys = [[0; 16]; N];
    let mut source = File::open("/dev/urandom")?;
    for key in &mut keys {
        source.read_exact(key)?;
    }
    Ok(keys)
}

impl PlatformIdentity {
    /// A platform that never existed before and never will again.
    ///
    /// # Errors
    /// If the host's random source cannot be read.
    pub fn throw_away() -> std::io::Result<Self> {
        PlatformFuses::draw()?.boot()
    }

    /// The platform that `seed` stands for; the same seed gives the same platform.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let part = |name: &str| -> [u8; 32] {
            Sha256::new().chain_update(seed).chain_update(name).finalize().into()
        };
        let half = |name: &str| -> [u8; 16] {
            let mut half = [0; 16];
            half.copy_from_slice(&part(name)[..16]);
            half
        };
        Self {
            fuses: PlatformFuses {
                root_key: half("root key"),
                seal_fuses: half("seal fuses"),
                owner_epoch: half("owner epoch"),
                cpusvn: CPUSVN,
            },
            report_keyid: part("report key id"),
            paging_key: half("paging key"),
        }
    }
}

impl core::fmt::Debug for PlatformIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The rest is secret.
        f.debug_struct("PlatformIdentity").field("fuses", &self.fuses).finish_non_exhaustive()
    }
}
