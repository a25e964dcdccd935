//! What booting asks of a file system.

use thiserror::Error;

use super::ext::Ext;
use super::fat::Fat;
use super::region::Region;

/// Symbolic links that one path may lead through.
pub(super) const MAX_LINKS: usize = 16;
/// Names of one directory; what is beyond them is not seen.
pub(super) const MAX_NAMES: usize = 4096;

/// Why a file cannot be read.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// There is nothing of that name.
    #[error("no such file")]
    NotFound,
    /// A directory where a file is wanted, or the reverse.
    #[error("not of the right kind")]
    WrongKind,
    /// More bytes than it may have.
    #[error("{size} bytes are more than the {limit} that it may have")]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most that are read.
        limit: u64,
    },
    /// It uses features that are not read.
    #[error("it has the feature {0}, which is not read here")]
    Unsupported(String),
    /// What is there is no file system that is read.
    #[error("it is on {0}")]
    Unreadable(String),
    /// The file system contradicts itself, or the host cannot read the image.
    #[error("the file system is damaged: {0}")]
    Damaged(String),
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A file and its bytes.
    File(u64),
    /// A directory.
    Directory,
}

/// What a directory says of a name in it, without following a symbolic link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Whether it is a directory.
    pub(super) directory: bool,
    /// When it was last written to, in seconds since 1970.
    pub(super) modified: Option<i64>,
}

/// A file system that is only read. Paths are absolute, with `/` between names.
pub(super) trait FileSystem {
    /// Its type, for messages.
    fn name(&self) -> &'static str;
    /// Its type as GRUB calls it.
    fn grub_name(&self) -> &'static str;
    /// Whether names differ that differ in case only.
    fn same_name(&self, one: &str, other: &str) -> bool {
        one == other
    }
    /// Its UUID as `blkid` and GRUB write it.
    fn uuid(&self) -> String;
    /// Its label.
    fn label(&self) -> String;
    /// What is at `path`.
    fn kind(&self, path: &str) -> Result<Kind, FileError>;
    /// What is at `path`, or the symbolic link there.
    fn entry(&self, path: &str) -> Result<Entry, FileError>;
    /// The bytes of a file, at most `limit`.
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileError>;
    /// The names in a directory, in any order, without `.` and `..`.
    fn list(&self, path: &str) -> Result<Vec<String>, FileError>;
}

/// The file system of a region, if it is one that is known.
pub(super) fn open(region: &Region) -> Result<Box<dyn FileSystem>, String> {
    if Ext::is_magic(region) {
        return match Ext::open(region) {
            Ok(system) => Ok(Box::new(system)),
            Err(error) => Err(format!("ext4 that cannot be read ({error})")),
        };
    }
    if let Some(system) = Fat::open(region) {
        return Ok(Box::new(system));
    }
    Err(other(region).to_owned())
}

/// What else it may be, for a message.
fn other(region: &Region) -> &'static str {
    let starts = |offset, magic: &[u8]| {
        let mut bytes = vec![0; magic.len()];
        region.read_at(offset, &mut bytes).is_ok() && bytes == magic
    };
    if starts(0, b"XFSB") {
        "XFS, which is not read here"
    } else if starts(0x1_0040, b"_BHRfS_M") {
        "btrfs, which is not read here"
    } else if starts(0, b"LUKS\xba\xbe") {
        "LUKS, which is encrypted"
    } else if starts(536, b"LVM2 001") {
        "an LVM volume, which is not read here"
    } else if starts(32769, b"CD001") {
        "ISO 9660, which is not read here"
    } else {
        "no file system that is read here"
    }
}
