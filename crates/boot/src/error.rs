//! Why a kernel, an initial RAM disk or a command line cannot be booted.

use std::io;
use std::path::PathBuf;

use linux_loader::loader;
use thiserror::Error;
use vm_memory::GuestMemoryError;

use super::disk::DiskBootError;
use super::size::format_size;

/// What stops a boot. Whoever knows where the kernel, the disk and the RAM come from says so: where the
/// message does not tell what to do, [`BootError::remedy`] does.
#[derive(Debug, Error)]
pub enum BootError {
    /// The kernel.
    #[error("{0}")]
    Kernel(KernelError),
    /// The initial RAM disk.
    #[error("{0}")]
    Initrd(InitrdError),
    /// The command line.
    #[error("{0}")]
    CommandLine(CommandLineError),
    /// The disk, where it has to name the kernel.
    #[error("{path}: {reason}", path = .path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// Why nothing on it can be booted.
        reason: DiskBootError,
    },
    /// A boot structure of the first MiB could not be written.
    #[error("cannot write the boot structures to guest RAM")]
    Ram(#[from] GuestMemoryError),
}

// Not `#[from]`: that would make a source of what the message already says.
impl From<KernelError> for BootError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<InitrdError> for BootError {
    fn from(error: InitrdError) -> Self {
        Self::Initrd(error)
    }
}

impl From<CommandLineError> for BootError {
    fn from(error: CommandLineError) -> Self {
        Self::CommandLine(error)
    }
}

/// What to do about an error whose message does not say it: it depends on how the machine is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Give the machine more RAM.
    MoreMemory,
    /// Name a kernel instead of booting the disk.
    NameKernel,
    /// The same, after a message that says that there is no kernel.
    NameOne,
    /// Check the disk's file systems, or name a kernel.
    CheckOrNameOne,
}

impl BootError {
    /// What to do, where the message does not say it.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Kernel(error) => error.remedy(),
            Self::Initrd(error) => error.remedy(),
            Self::Disk { reason, .. } => reason.remedy(),
            Self::CommandLine(_) | Self::Ram(_) => None,
        }
    }
}

impl KernelError {
    /// What to do, where the message does not say it.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        matches!(self, Self::DoesNotFit { .. }).then_some(Remedy::MoreMemory)
    }
}

impl InitrdError {
    /// What to do, where the message does not say it.
    #[must_use]
    pub fn remedy(&self) -> Option<Remedy> {
        matches!(self, Self::DoesNotFit { .. }).then_some(Remedy::MoreMemory)
    }
}

/// Why a file is not a kernel that boots here.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {reason}: name a bzImage or an ELF kernel", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("{path} is not a regular file: name a bzImage or an ELF kernel", path = .0.display())]
    NotAFile(PathBuf),
    /// The file is larger than any address of the boot protocols.
    #[error("{path} is {size} bytes, more than a kernel can be: name a bzImage or an ELF kernel", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// The file has no bytes.
    #[error("the file is empty: name a bzImage or an ELF kernel")]
    Empty,
    /// Neither magic number is there.
    #[error("the file is neither a bzImage nor an ELF kernel: name the vmlinuz of a Linux package")]
    NotAKernel,
    /// Headers promise more bytes than the file has.
    #[error("the file is cut short, {have} bytes of {need}: copy it again")]
    Truncated {
        /// Bytes in the file.
        have: u64,
        /// Bytes that its headers speak of.
        need: u64,
    },
    /// A zImage, or a boot protocol older than 2.06.
    #[error("the kernel speaks boot protocol {0}.{1:02}, older than 2.06: use a newer kernel")]
    OldProtocol(u8, u8),
    /// A field of a header has a value that no kernel has.
    #[error("the kernel's header is damaged ({0}): copy the file again")]
    Malformed(&'static str),
    /// An ELF file of another machine or class.
    #[error("the file is an ELF file but not a kernel for x86-64: name a bzImage or an ELF kernel")]
    WrongElf,
    /// An ELF file without XEN_ELFNOTE_PHYS32_ENTRY.
    #[error("the ELF file has no PVH entry: use a kernel with CONFIG_PVH, or its bzImage")]
    NoPvhEntry,
    /// The kernel, decompressed, does not fit in low RAM.
    #[error(
        "the kernel needs RAM from {start:#x} to {end:#x} and there is {}", format_size(*.ram)
    )]
    DoesNotFit {
        /// First address that it uses.
        start: u64,
        /// First address past it.
        end: u64,
        /// Bytes of low RAM.
        ram: u64,
    },
    /// The loader refused what the checks above let through.
    #[error("the kernel cannot be loaded: {0}: copy the file again")]
    Load(loader::Error),
}

/// Why an initial RAM disk cannot be loaded.
#[derive(Debug, Error)]
pub enum InitrdError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {reason}: name an initial RAM disk", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// A directory, a device or a pipe.
    #[error("{path} is not a regular file: name an initial RAM disk", path = .0.display())]
    NotAFile(PathBuf),
    /// The file has no bytes.
    #[error("{path} is empty: name an initial RAM disk or leave the option out", path = .0.display())]
    Empty(PathBuf),
    /// No room between the kernel and the end of what the kernel can reach.
    #[error("the file has {size} bytes and beside the kernel there is room for {room}")]
    DoesNotFit {
        /// Bytes in the file.
        size: u64,
        /// Bytes free above the kernel.
        room: u64,
    },
}

/// Why a command line cannot be passed on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CommandLineError {
    /// Longer than the kernel's buffer.
    #[error("{len} bytes are more than the {max} that this kernel takes: write a shorter line")]
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes that the kernel takes.
        max: usize,
    },
    /// A NUL byte would end the line early.
    #[error("the line has a NUL byte in it: leave it out")]
    Nul,
}
