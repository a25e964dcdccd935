//! Why nothing on a disk can be booted.

use std::io;

use thiserror::Error;

use crate::error::KernelError;

/// Why nothing on a disk can be booted. The caller names the image before it.
#[derive(Debug, Error)]
pub enum DiskBootError {
    /// The host cannot tell the image's size.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// No partition has a boot loader's configuration.
    #[error(
        "no partition has a kernel to boot: looked for grub.cfg and Boot Loader Specification \
         entries in {0}: name one with --kernel"
    )]
    Nothing(String),
    /// There are configurations, and each is of no use.
    #[error("no kernel can be booted from it: {0}: name one with --kernel")]
    Unusable(String),
    /// A kernel or an initial RAM disk that is named cannot be read.
    #[error("{file}, which {by} names, cannot be read: {reason}: name a kernel with --kernel")]
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
    Load(String),
    /// Reading took longer than it may.
    #[error("its file systems cannot be read within {0} s: check them, or name one with --kernel")]
    TooSlow(u64),
    /// Reading failed in a way that is a bug.
    #[error("its file systems cannot be read: name a kernel with --kernel")]
    Failed,
}
