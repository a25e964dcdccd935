//! Who may give guests the provisioning key.
//!
//! The key is the same for every owner of a platform (SDM Vol. 3D, 38.17, EGETKEY: OWNER_EPOCH is
//! no part of it), so whoever has it can tell platforms apart for ever. Linux lets a process have
//! it for enclaves or for a virtual machine if it can open `/dev/sgx_provision`
//! (`sgx_set_attribute`, `KVM_CAP_SGX_ATTRIBUTE`).

use std::fs::File;

/// The right to give a virtual machine the provisioning key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvisioningRight(());

impl ProvisioningRight {
    /// The right of a process that has opened the file which is the authority: `/dev/sgx_provision`
    /// on a host with SGX, the file that stands for it where the platform is software. That
    /// `authority` is that file, the caller has seen to.
    #[must_use]
    pub const fn by(authority: &File) -> Self {
        let _ = authority;
        Self(())
    }

    /// The right to the keys of a platform that the process itself has made and that ends with it:
    /// they identify nothing.
    #[must_use]
    pub const fn of_own_platform() -> Self {
        Self(())
    }
}
