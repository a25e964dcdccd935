//! Why nothing on a disk can be booted.

use std::io;

use thiserror::Error;

use crate::error::{BootError, KernelError, Remedy};

/// Why nothing on a disk can be booted. The caller names the image before it, and what
/// [`DiskBootError::remedy`] says after it.
#[derive(Debug, Error)]
pub enum DiskBootError {
    /// The host cannot tell the image's size.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// No partition has a boot loader's configuration.
    #[error(
        "no partition has a kernel to boot: looked for grub.cfg and Boot Loader Specification \
         entries in {0}"
    )]
    Nothing(String),
    /// There are configurations, and each is of no use.
    #[error("no kernel can be booted from it: {0}")]
    Unusable(String),
    /// A kernel or an initial RAM disk that is named cannot be read.
    #[error("{file}, which {by} names, cannot be read: {reason}")]
    File {
        /// The kernel or the initial RAM disk, with its device.
        file: String,
        /// The configuration that names it.
        by: String,
        /// Why.
        reason: String,
    },
    /// The kernel is not one that boots here.
    #[error("{file}, which {by} names, does not boot: {reason}")]
    Kernel {
        /// The kernel, with its device.
        file: String,
        /// The configuration that names it.
        by: String,
        /// Why.
        reason: KernelError,
    },
    /// What is named cannot be loaded into this machine.
    #[error("what its boot loader would boot cannot be loaded: {0}")]
    Load(Box<BootError>),
    /// Reading took longer than it may.
    #[error("its file systems cannot be read within {0} s")]
    TooSlow(u64),
    /// Reading failed in a way that is a bug.
    #[error("its file systems cannot be read")]
    Failed,
}

impl DiskBootError {
    /// What to do, where the message does not say it.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Read(_) => None,
            Self::Nothing(_) | Self::Unusable(_) => Some(Remedy::NameOne),
            Self::File { .. } | Self::Failed => Some(Remedy::NameKernel),
            Self::Kernel { reason, .. } => reason.remedy(),
            Self::Load(error) => error.remedy(),
            Self::TooSlow(_) => Some(Remedy::CheckOrNameOne),
        }
    }
}
