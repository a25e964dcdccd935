//! Files and folders that the guest has open.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use crate::message::{Put as _, low};
use crate::tree::Tree;

/// Bytes of entries that are read from a folder at a time.
const ENTRIES: usize = 32 << 10;
/// Bytes of `fuse_dirent` before the name.
const ENTRY: usize = 24;

/// What is open, by the handles that the guest has.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    files: HashMap<u64, OwnedFd>,
    next: u64,
}

impl OpenFiles {
    pub(crate) fn clear(&mut self) {
        self.files.clear();
    }

    pub(crate) fn insert(&mut self, file: OwnedFd) -> u64 {
        self.next += 1;
        self.files.insert(self.next, file);
        self.next
    }

    pub(crate) fn get(&self, handle: u64) -> Result<&OwnedFd, Errno> {
        self.files.get(&handle).ok_or(Errno::BADF)
    }

    pub(crate) fn close(&mut self, handle: u64) {
        self.files.remove(&handle);
    }

    /// Appends entries of an open folder from `offset` on, as many as `room` bytes hold.
    pub(crate) fn read_folder(
        &self,
        handle: u64,
        offset: u64,
        room: usize,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let folder = self.get(handle)?;
        seek(folder, SeekFrom::Start(offset))?;
        let end = reply.len() + room;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let kind = entry.file_type().as_raw_mode() >> 12;
            let next = entry.next_entry_cookie();
            if !put_entry(reply, end, (entry.ino(), next, kind), name) {
                break;
            }
        }
        Ok(())
    }
}

/// Appends the entries of the folder of shares.
pub(crate) fn read_top(tree: &Tree, offset: u64, room: usize, reply: &mut Vec<u8>) {
    const FOLDER: u32 = 4;
    let end = reply.len() + room;
    let own = [&b"."[..], b".."];
    let names = own.into_iter().chain(tree.share_names());
    for (next, name) in (1..).zip(names).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
        if !put_entry(reply, end, (next, next, FOLDER), name) {
            break;
        }
    }
}

/// Appends a `fuse_dirent` of inode number, offset of the next and type, if it ends before `end`.
fn put_entry(
    reply: &mut Vec<u8>,
    end: usize,
    (inode, next, kind): (u64, u64, u32),
    name: &[u8],
) -> bool {
    let size = (ENTRY + name.len()).next_multiple_of(8);
    if reply.len() + size > end {
        return false;
    }
    let start = reply.len();
    reply.put64(inode);
    reply.put64(next);
    reply.put32(low(name.len() as u64));
    reply.put32(kind);
    reply.extend(name);
    reply.resize(start + size, 0);
    true
}

/// Flags of open(2) that the guest may choose: whether it reads, writes, and at the end.
pub(crate) fn open_flags(flags: u32) -> OFlags {
    OFlags::from_bits_truncate(flags) & (OFlags::ACCMODE | OFlags::APPEND)
}

/// Whether a file that is opened so can be written.
pub(crate) fn writes(flags: OFlags) -> bool {
    flags & OFlags::ACCMODE != OFlags::RDONLY
}
