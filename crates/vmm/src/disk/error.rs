//! Why a machine cannot have a disk.

use std::io;
use std::path::PathBuf;

use cloister_devices::virtio::BlockError;
use thiserror::Error;

use super::{Qcow2Error, VmdkError};
use crate::complaint::{Complaint, Fix, Setting};

/// Why a machine cannot have a disk. [`DiskError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum DiskError {
    /// An image that cannot be opened.
    #[error("cannot open {path}: {reason}", path = .path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
        /// It was to be written.
        writable: bool,
    },
    /// An image that cannot be read.
    #[error("cannot read {path}: {reason}", path = .path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// An image that another machine or program has.
    #[error("{path} is in use by another machine or program", path = .path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// The machine was to read it only, so the other writes to it.
        readonly: bool,
    },
    /// An image that is given twice.
    #[error("{path} is given twice", path = .0.display())]
    Twice(PathBuf),
    /// An image of a format that is not read.
    #[error("{path} is a {format} image, which is not read", path = .path.display())]
    Format {
        /// The image.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// A file that is not a disk image.
    #[error("{path}: {reason}", path = .path.display())]
    NoDisk {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: BlockError,
    },
    /// A qcow2 image that cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    Qcow2 {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: Qcow2Error,
    },
    /// A VMDK image that cannot be used.
    #[error("{path}: {reason}", path = .path.display())]
    Vmdk {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: VmdkError,
    },
    /// An image says that it is based on a file that no option names.
    #[error(
        "{path} is based on {name}, and no file is opened because an image says so",
        path = .path.display(), name = .name.escape_debug()
    )]
    BackingMissing {
        /// The image.
        path: PathBuf,
        /// What it says.
        name: String,
        /// How many layers lie over it.
        depth: usize,
    },
    /// Neither the options nor the image over it say what a backing file's format is.
    #[error("the format of {path} is not known", path = .path.display())]
    BackingFormat {
        /// The backing file.
        path: PathBuf,
        /// How many layers lie over the image that it is for.
        depth: usize,
    },
    /// An option names a backing file for an image without one.
    #[error("{path} is not based on another file, and one is named for it", path = .0.display())]
    BackingUnwanted(PathBuf),
    /// There is no file for what is written.
    #[error("cannot make a file in /var/tmp for what the guest writes: {0}")]
    Temporary(io::Error),
}

impl DiskError {
    /// The setting that is at fault, why, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let new = |fix| Complaint::new(Setting::Disk, self.to_string(), fix);
        let read_only = |first, images| new(Fix::OrReadOnly { first, images });
        match self {
            Self::Open { reason, writable: true, .. }
                if reason.kind() == io::ErrorKind::PermissionDenied =>
            {
                read_only("name an image", "one that may not be written")
            }
            Self::Open { .. } | Self::Read { .. } => new(Fix::NameImage),
            Self::InUse { readonly: true, .. } => {
                new("end it, or wait until it no longer writes to it".into())
            }
            Self::InUse { .. } => read_only("end it", "the image for all that have it"),
            Self::Twice(_) => read_only("leave one out", "both"),
            Self::Format { format, .. } => {
                new(format!("convert it with qemu-img convert -f {format} -O qcow2").into())
            }
            Self::NoDisk { .. } => new("name a raw image of at least 512 bytes".into()),
            Self::Qcow2 { reason, .. } => new(qcow2_fix(reason).into()),
            Self::Vmdk { reason, .. } => new(vmdk_fix(reason)),
            &Self::BackingMissing { depth, .. } => new(Fix::NameBacking { depth }),
            &Self::BackingFormat { depth, .. } => new(Fix::NameBackingFormat { depth }),
            Self::BackingUnwanted(_) => new("leave that out".into()),
            Self::Temporary(_) => new("make room there, or do without a snapshot".into()),
        }
    }
}

fn qcow2_fix(error: &Qcow2Error) -> &'static str {
    match error {
        Qcow2Error::NotQcow2 => "name its format, or leave it out",
        Qcow2Error::Read(_) => "name an image that can be read",
        Qcow2Error::Dirty
        | Qcow2Error::Corrupt
        | Qcow2Error::Impossible(_)
        | Qcow2Error::Unsound(_) => "check it with qemu-img check, which repairs with -r all",
        Qcow2Error::Version(_)
        | Qcow2Error::Gaps
        | Qcow2Error::Encrypted
        | Qcow2Error::DataFile
        | Qcow2Error::Features(_) => "convert it with qemu-img convert -O qcow2",
    }
}

fn vmdk_fix(error: &VmdkError) -> Fix {
    match error {
        VmdkError::NotVmdk => "name its format, or leave it out".into(),
        VmdkError::Read(_) => "name an image that can be read".into(),
        VmdkError::Flat(_) => "give that file, with format=raw".into(),
        VmdkError::ReadOnly(_) => Fix::NotWritten,
        VmdkError::Part => "convert the disk with qemu-img convert -O qcow2".into(),
        VmdkError::Split(_)
        | VmdkError::Delta
        | VmdkError::Kind(_)
        | VmdkError::Version(_)
        | VmdkError::Flags(_)
        | VmdkError::Compression(_)
        | VmdkError::Impossible(_) => "convert it with qemu-img convert -O qcow2".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunWording;
    use crate::complaint::Wording as _;
    use crate::qemu::QemuWording;

    #[test]
    fn a_disk_that_may_not_be_written_can_be_read_only() {
        let open = |kind: io::ErrorKind, writable| {
            let error = DiskError::Open { path: "d".into(), reason: kind.into(), writable };
            QemuWording.line(&error.complaint())
        };

        assert_eq!(
            open(io::ErrorKind::PermissionDenied, true),
            "-drive: cannot open d: permission denied: \
             name an image, or add readonly=on to one that may not be written"
        );
        assert_eq!(
            open(io::ErrorKind::PermissionDenied, false),
            "-drive: cannot open d: permission denied: name an image"
        );
        assert_eq!(
            open(io::ErrorKind::NotFound, true),
            "-drive: cannot open d: entity not found: name an image"
        );
    }

    #[test]
    fn a_backing_file_is_named_in_the_words_of_the_front_end() {
        let missing =
            |depth| DiskError::BackingMissing { path: "d".into(), name: "a\n".into(), depth };
        let format = DiskError::BackingFormat { path: "b".into(), depth: 1 };
        for (error, run, qemu) in [
            (
                missing(0),
                "--disk: d is based on a\\n, and no file is opened because an image says so: \
                 add ,backing=FILE",
                "-drive: d is based on a\\n, and no file is opened because an image says so: \
                 add backing.file.filename=FILE",
            ),
            (
                missing(1),
                "--disk: d is based on a\\n, and no file is opened because an image says so: \
                 add ,backing=FILE",
                "-drive: d is based on a\\n, and no file is opened because an image says so: \
                 add backing.backing.file.filename=FILE",
            ),
            (
                format,
                "--disk: the format of b is not known: \
                 add ,backing-format=raw, ,backing-format=qcow2 or ,backing-format=vmdk after it",
                "-drive: the format of b is not known: \
                 add backing.backing.driver=raw, backing.backing.driver=qcow2 or \
                 backing.backing.driver=vmdk",
            ),
        ] {
            assert_eq!(RunWording.line(&error.complaint()), run);
            assert_eq!(QemuWording.line(&error.complaint()), qemu);
        }
    }
}
