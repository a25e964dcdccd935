//! Numbers of the protocol (Linux, `include/uapi/linux/fuse.h`).

/// Bytes of data in one request or reply at most.
pub const MAX_IO: u32 = 128 << 10;

/// The version that is spoken: 7.31.
pub(crate) const MAJOR: u32 = 7;
pub(crate) const MINOR: u32 = 31;

/// The folder that is mounted.
pub(crate) const ROOT: u64 = 1;

/// Bytes of `fuse_in_header` and of `fuse_out_header`.
pub(crate) const IN_HEADER: usize = 40;
pub(crate) const OUT_HEADER: usize = 16;

/// Requests.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
}

/// Flags of INIT that are agreed to where the guest offers them: reads ahead, writes of more than a page,
/// data that are read again when a file's time changed, entries of folders with their attributes, folders that are
/// read in parallel, messages of [`MAX_IO`], targets of links that are kept.
///
/// Attributes come with all entries and not where the guest has asked for those of others (`FUSE_READDIRPLUS_AUTO`): programs
/// read the whole of a folder first, so that most entries would come without.
pub(crate) const INIT_FLAGS: u32 = 1 | 1 << 5 | 1 << 12 | 1 << 13 | 1 << 18 | 1 << 22 | 1 << 23;

/// `FOPEN_KEEP_CACHE`, `FOPEN_CACHE_DIR`.
pub(crate) const KEEP_CACHE: u32 = 1 << 1;
pub(crate) const CACHE_DIR: u32 = 1 << 3;

/// Which attributes SETATTR sets (`FATTR_*`).
pub(crate) mod set {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const HANDLE: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
}

/// `FUSE_FSYNC_FDATASYNC`.
pub(crate) const DATA_ONLY: u32 = 1;
