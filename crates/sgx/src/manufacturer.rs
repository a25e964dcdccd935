//! What whoever has the fuses of a platform knows without running an enclave on it: on hardware
//! its manufacturer, here the owner of the platform's secrets.

use aes::Aes128;
use cmac::{Cmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::attributes::Attributes;
use crate::enclu::{egetkey, report_key};
use crate::identity::PlatformFuses;
use crate::inspect::EnclaveIdentity;
use crate::keys::{KeyDependencies, PKCS1_5_PADDING};
use crate::layout::{KeyRequest, Report, Secs, TargetInfo};
use crate::status::SgxStatus;

/// A KEYNAME of no key of enclaves (SDM Vol. 3D, table 35-24): EGETKEY refuses it.
const MANUFACTURER_KEY: u16 = 0xffff;

impl PlatformFuses {
    /// The key that EGETKEY gives an enclave without KSS and MISCSELECT that is `enclave` and has
    /// these ATTRIBUTES, INIT among them. The reserved space of `request` is not looked at.
    ///
    /// # Errors
    /// The status with which EGETKEY refuses: SGX_INVALID_ATTRIBUTE, SGX_INVALID_CPUSVN,
    /// SGX_INVALID_ISVSVN or SGX_INVALID_KEYNAME. EINITTOKEN keys are always refused, since they
    /// depend on a processor's IA32_SGXLEPUBKEYHASH0-3.
    pub fn egetkey(
        &self,
        enclave: &EnclaveIdentity,
        attributes: Attributes,
        request: &KeyRequest,
    ) -> Result<[u8; 16], SgxStatus> {
        let secs = Secs {
            attributes,
            mrenclave: enclave.mrenclave,
            mrsigner: enclave.mrsigner,
            isvprodid: enclave.isvprodid.into(),
            isvsvn: enclave.isvsvn.into(),
            padding: PKCS1_5_PADDING,
            ..Secs::new_zeroed()
        };
        let no_launch_enclave = enclave.mrsigner.map(|byte| !byte);
        egetkey::derive(self, &secs, request, &no_launch_enclave)
    }

    /// Whether EREPORT made `report` for `target` on this platform, at its present CPUSVN. Takes
    /// as long whatever the MAC is.
    #[must_use]
    pub fn is_genuine(&self, report: &Report, target: &TargetInfo) -> bool {
        self.report_cmac(report, target).verify(&report.mac.into()).is_ok()
    }

    /// The MAC that EREPORT gives `report` for `target` on this platform.
    #[must_use]
    pub fn report_mac(&self, report: &Report, target: &TargetInfo) -> [u8; 16] {
        self.report_cmac(report, target).finalize().into_bytes().into()
    }

    fn report_cmac(&self, report: &Report, target: &TargetInfo) -> Cmac<Aes128> {
        let key = report_key(self, target, &report.keyid);
        let mut cmac = Cmac::<Aes128>::new(&key.into());
        cmac.update(&report.as_bytes()[..Report::MACED]);
        cmac
    }

    /// A key of the manufacturer, one for each `purpose`, that no enclave of the platform gets.
    #[must_use]
    pub fn manufacturer_key(&self, purpose: &str) -> [u8; 16] {
        KeyDependencies {
            keyid: Sha256::digest(purpose).into(),
            ..KeyDependencies::new(MANUFACTURER_KEY)
        }
        .derive(self)
    }
}
