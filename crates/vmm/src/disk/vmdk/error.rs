//! Why a VMDK image cannot be used.

use std::io;

use thiserror::Error;

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum VmdkError {
    /// It is not of this format.
    #[error("it is not a vmdk image")]
    NotVmdk,
    /// The file cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// It is a text that names the file with the disk's bytes.
    #[error(
        "its data are in {name}, and no file is opened because an image says so",
        name = .0.escape_debug()
    )]
    Flat(String),
    /// It is a text that names several files, which are the disk together.
    #[error("its data are in {0} files")]
    Split(usize),
    /// It is a part of a disk, which another file describes.
    #[error("it is a part of a disk that another file describes")]
    Part,
    /// What is not in it is in another image.
    #[error("it is based on another image")]
    Delta,
    /// It is of a kind that is not read.
    #[error("it is a vmdk image of the kind {kind}", kind = .0.escape_debug())]
    Kind(String),
    /// Its version is none that is known.
    #[error("it is of version {0}")]
    Version(u32),
    /// It has features that are not known.
    #[error("it has features that are not known here (flags {0:#x})")]
    Flags(u32),
    /// Its grains are compressed in another way than is known.
    #[error("its compression ({0}) is not known here")]
    Compression(u16),
    /// It can only be read, and was to be written.
    #[error("it is {0}, which is only read")]
    ReadOnly(&'static str),
    /// What it says cannot be.
    #[error("its {0} cannot be")]
    Impossible(&'static str),
}
