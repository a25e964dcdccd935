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

    /// Appends entries of an open folder from `offset` on, as many as `room` bytes hold, each after what `before` appends
    /// for its name, of `size` bytes.
    pub(crate) fn read_folder(
        &self,
        handle: u64,
        offset: u64,
        room: usize,
        reply: &mut Vec<u8>,
        (size, mut before): (usize, impl FnMut(&mut Vec<u8>, &[u8])),
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
            if reply.len() + size + entry_size(name) > end {
                break;
            }
            before(reply, name);
            put_entry(reply, (entry.ino(), next, kind), name);
        }
        Ok(())
    }
}

/// Appends the entries of the folder of shares, each after `size` zeros.
pub(crate) fn read_top(tree: &Tree, offset: u64, room: usize, reply: &mut Vec<u8>, size: usize) {
    const FOLDER: u32 = 4;
    let end = reply.len() + room;
    let own = [&b"."[..], b".."];
    let names = own.into_iter().chain(tree.share_names());
    for (next, name) in (1..).zip(names).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
        if reply.len() + size + entry_size(name) > end {
            break;
        }
        reply.resize(reply.len() + size, 0);
        put_entry(reply, (next, next, FOLDER), name);
    }
}

/// Bytes of a `fuse_dirent`.
const fn entry_size(name: &[u8]) -> usize {
    (ENTRY + name.len()).next_multiple_of(8)
}

/// Appends a `fuse_dirent` of inode number, offset of the next and type.
fn put_entry(reply: &mut Vec<u8>, (inode, next, kind): (u64, u64, u32), name: &[u8]) {
    let end = reply.len() + entry_size(name);
    reply.put64(inode);
    reply.put64(next);
    reply.put32(low(name.len() as u64));
    reply.put32(kind);
    reply.extend(name);
    reply.resize(end, 0);
}

/// Flags of open(2) that the guest may choose: whether it reads, writes, and at the end.
pub(crate) fn open_flags(flags: u32) -> OFlags {
    OFlags::from_bits_truncate(flags) & (OFlags::ACCMODE | OFlags::APPEND)
}

/// Whether a file that is opened so can be written.
pub(crate) fn writes(flags: OFlags) -> bool {
    flags & OFlags::ACCMODE != OFlags::RDONLY
}
