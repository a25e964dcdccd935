//! Requests and their replies.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, SeekFrom, Stat, fdatasync, fstatvfs, fsync, readlinkat, seek};
use rustix::io::{Errno, pread};

use crate::abi::{
    CACHE_DIR, DATA_ONLY, INIT_FLAGS, KEEP_CACHE, MAJOR, MAX_IO, MINOR, OUT_HEADER, opcode,
};
use crate::message::{Fields, Header, Put as _, header, low};
use crate::open_files::{OpenFiles, open_flags, read_top, writes};
use crate::tree::{Share, Tree};

/// Pages of data in one message.
const MAX_PAGES: u16 = 32;
const _: () = assert!(MAX_PAGES as u32 * 4096 == MAX_IO);
/// Bytes of `fuse_entry_out`.
const ENTRY_OUT: usize = 128;
/// Seconds from which on a share is taken to stay as it is.
const STEADY: u64 = 60;

/// A server of shares for one guest.
#[derive(Debug)]
pub struct Server {
    pub(crate) tree: Tree,
    pub(crate) open: OpenFiles,
}

impl Server {
    /// A server of the only one of `shares`, or of a folder of `several`. `descriptors` is
    /// `/proc/self/fd`, open.
    ///
    /// Its writable shares take the modes of files as the guest gives them if the process's umask is zero.
    #[must_use]
    pub fn new(shares: Vec<Share>, several: bool, descriptors: OwnedFd) -> Self {
        Self { tree: Tree::new(shares, several, descriptors), open: OpenFiles::default() }
    }

    /// The server, which keeps at most so many files open for what the guest has looked up. Others are found
    /// again by their names, unless the host has moved them.
    #[must_use]
    pub fn with_nodes_open(mut self, limit: usize) -> Self {
        self.tree.limit(limit);
        self
    }

    /// Answers a request with a reply of at most `room` bytes: none, if the request has none.
    pub fn answer(&mut self, request: &[u8], room: usize, reply: &mut Vec<u8>) {
        reply.clear();
        let Some((header, fields)) = header(request) else { return };
        if self.take_silent(&header, fields) || room < OUT_HEADER {
            return;
        }
        reply.resize(OUT_HEADER, 0);
        let outcome = self.handle(&header, fields, room - OUT_HEADER, reply);
        // A guest that gives less room than a reply has gets none of it.
        let fits = if reply.len() <= room { Ok(()) } else { Err(Errno::INVAL) };
        let outcome = outcome.and(fits);
        if outcome.is_err() {
            reply.truncate(OUT_HEADER);
        }
        let error = outcome.err().map_or(0, |error| -error.raw_os_error());
        let len = low(reply.len() as u64);
        reply[0..4].copy_from_slice(&len.to_le_bytes());
        reply[4..8].copy_from_slice(&error.to_le_bytes());
        reply[8..16].copy_from_slice(&header.unique.to_le_bytes());
    }

    /// Takes a request that has no reply. Returns whether it was one.
    fn take_silent(&mut self, header: &Header, mut fields: Fields<'_>) -> bool {
        match header.opcode {
            opcode::FORGET => {
                if let Ok(lookups) = fields.u64() {
                    self.tree.forget(header.node, lookups);
                }
            }
            opcode::BATCH_FORGET => {
                let count = fields.u32().unwrap_or(0);
                // Padding.
                let _ = fields.u32();
                for _ in 0..count {
                    let (Ok(node), Ok(lookups)) = (fields.u64(), fields.u64()) else { break };
                    self.tree.forget(node, lookups);
                }
            }
            // Requests are answered in their order, and none waits.
            opcode::INTERRUPT => {}
            _ => return false,
        }
        true
    }

    fn handle(
        &mut self,
        header: &Header,
        mut fields: Fields<'_>,
        room: usize,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let node = header.node;
        match header.opcode {
            opcode::INIT => self.init(fields, reply),
            opcode::DESTROY => {
                self.forget_all();
                Ok(())
            }
            opcode::LOOKUP => {
                let name = fields.name()?;
                match self.tree.look_up(node, name) {
                    Ok(found) => {
                        self.put_entry(reply, found);
                        Ok(())
                    }
                    Err(Errno::NOENT) => {
                        self.put_missing(reply, node);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            opcode::GETATTR => self.put_attributes(reply, node),
            opcode::READLINK => {
                let target = readlinkat(self.tree.file(node)?, "", Vec::new())?;
                reply.extend(target.as_bytes());
                Ok(())
            }
            opcode::OPEN => self.open(node, fields, reply),
            opcode::READ => self.read(fields, room, reply),
            opcode::OPENDIR => self.open_folder(node, reply),
            opcode::READDIR | opcode::READDIRPLUS => self.read_folder(header, fields, room, reply),
            opcode::RELEASE | opcode::RELEASEDIR => {
                self.open.close(fields.u64()?);
                Ok(())
            }
            opcode::STATFS => self.put_file_system(reply, node),
            opcode::FSYNC | opcode::FSYNCDIR => {
                let (handle, flags) = (fields.u64()?, fields.u32()?);
                let file = self.open.get(handle)?;
                if flags & DATA_ONLY != 0 { fdatasync(file) } else { fsync(file) }
            }
            opcode::LSEEK => {
                let (handle, offset, whence) = (fields.u64()?, fields.u64()?, fields.u32()?);
                let to = match whence {
                    3 => SeekFrom::Data(offset),
                    4 => SeekFrom::Hole(offset),
                    _ => return Err(Errno::INVAL),
                };
                reply.put64(seek(self.open.get(handle)?, to)?);
                Ok(())
            }
            _ => self.change(header, fields, reply),
        }
    }

    fn forget_all(&mut self) {
        self.tree.clear();
        self.open.clear();
    }

    fn init(&mut self, mut fields: Fields<'_>, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let (major, minor) = (fields.u32()?, fields.u32()?);
        if (major, minor) < (MAJOR, MINOR) {
            return Err(Errno::PROTO);
        }
        reply.put32(MAJOR);
        reply.put32(MINOR);
        // A guest of a later protocol asks again in this one.
        if major == MAJOR {
            self.forget_all();
            let (read_ahead, flags) = (fields.u32()?, fields.u32()?);
            reply.put32(read_ahead.min(MAX_IO));
            reply.put32(flags & INIT_FLAGS);
            // Requests in the background, and from how many on the guest slows down.
            reply.extend(64_u16.to_le_bytes());
            reply.extend(48_u16.to_le_bytes());
            reply.put32(MAX_IO);
            // Times are in nanoseconds.
            reply.put32(1);
            reply.extend(MAX_PAGES.to_le_bytes());
            reply.resize(OUT_HEADER + 64, 0);
        }
        Ok(())
    }

    /// `fuse_entry_out`.
    pub(crate) fn put_entry(&mut self, reply: &mut Vec<u8>, found: (u64, Stat)) {
        put_entry(&mut self.tree, reply, found);
    }

    /// `fuse_entry_out` of what is not there, as long as the guest may keep that.
    fn put_missing(&self, reply: &mut Vec<u8>, parent: u64) {
        reply.put64(0);
        reply.put64(0);
        reply.put64(self.tree.valid(parent).as_secs());
        reply.resize(OUT_HEADER + ENTRY_OUT, 0);
    }

    /// `fuse_attr_out`.
    pub(crate) fn put_attributes(&mut self, reply: &mut Vec<u8>, node: u64) -> Result<(), Errno> {
        let stat = self.tree.stat(node)?;
        let inode = self.tree.inode(&stat);
        reply.put64(self.tree.valid(node).as_secs());
        reply.put64(0);
        reply.put_attributes(inode, &stat);
        Ok(())
    }

    /// `fuse_open_out`.
    pub(crate) fn put_open(&mut self, reply: &mut Vec<u8>, node: u64, file: OwnedFd, folder: bool) {
        let steady = self.tree.valid(node).as_secs() >= STEADY;
        let kept = if folder { KEEP_CACHE | CACHE_DIR } else { KEEP_CACHE };
        reply.put64(self.open.insert(file));
        reply.put32(if steady { kept } else { 0 });
        reply.put32(0);
    }

    fn open(
        &mut self,
        node: u64,
        mut fields: Fields<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let flags = open_flags(fields.u32()?);
        if writes(flags) {
            self.tree.check_writable(node)?;
        }
        let file = self.tree.open(node, flags)?;
        self.put_open(reply, node, file, false);
        Ok(())
    }

    fn open_folder(&mut self, node: u64, reply: &mut Vec<u8>) -> Result<(), Errno> {
        if self.tree.is_top(node) {
            reply.resize(OUT_HEADER + 16, 0);
            return Ok(());
        }
        let folder = self.tree.open(node, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.put_open(reply, node, folder, true);
        Ok(())
    }

    /// Appends entries of an open folder: with READDIRPLUS each after a `fuse_entry_out`, which counts as a lookup where
    /// it says something.
    fn read_folder(
        &mut self,
        header: &Header,
        mut fields: Fields<'_>,
        room: usize,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (handle, offset) = (fields.u64()?, fields.u64()?);
        let room = room.min(fields.u32()?.min(MAX_IO) as usize);
        let (node, plus) = (header.node, header.opcode == opcode::READDIRPLUS);
        let size = if plus { ENTRY_OUT } else { 0 };
        // A share is looked up by itself.
        if self.tree.is_top(node) {
            read_top(&self.tree, offset, room, reply, size);
            return Ok(());
        }
        let (tree, open) = (&mut self.tree, &self.open);
        let look_up = |reply: &mut Vec<u8>, name: &[u8]| {
            let end = reply.len() + size;
            // The folder itself and the one around it have no entry of their own.
            if plus
                && !matches!(name, b"." | b"..")
                && let Ok(found) = tree.look_up(node, name)
            {
                put_entry(tree, reply, found);
            }
            reply.resize(end, 0);
        };
        open.read_folder(handle, offset, room, reply, (size, look_up))
    }

    fn read(&self, mut fields: Fields<'_>, room: usize, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let size = room.min(size.min(MAX_IO) as usize);
        reply.resize(OUT_HEADER + size, 0);
        let count = pread(self.open.get(handle)?, &mut reply[OUT_HEADER..], offset)?;
        reply.truncate(OUT_HEADER + count);
        Ok(())
    }

    /// `fuse_statfs_out`.
    fn put_file_system(&mut self, reply: &mut Vec<u8>, node: u64) -> Result<(), Errno> {
        let file = match self.tree.file(node) {
            Err(Errno::PERM) => {
                reply.resize(OUT_HEADER + 80, 0);
                return Ok(());
            }
            file => file?,
        };
        let found = fstatvfs(file)?;
        for number in [found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree]
        {
            reply.put64(number);
        }
        reply.put32(low(found.f_bsize));
        reply.put32(low(found.f_namemax));
        reply.put32(low(found.f_frsize));
        reply.resize(OUT_HEADER + 80, 0);
        Ok(())
    }
}

/// `fuse_entry_out`.
fn put_entry(tree: &mut Tree, reply: &mut Vec<u8>, (node, stat): (u64, Stat)) {
    let valid = tree.valid(node);
    let inode = tree.inode(&stat);
    reply.put64(node);
    reply.put64(0);
    reply.put64(valid.as_secs());
    reply.put64(valid.as_secs());
    reply.put64(0);
    reply.put_attributes(inode, &stat);
}

#[cfg(test)]
mod tests;
