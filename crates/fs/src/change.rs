//! Requests that change something: all of them on shares that may be written alone.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid, fallocate, fchmod, fchown, ftruncate, mkdirat, mknodat, openat2,
    renameat_with, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};

use crate::abi::{MAX_IO, opcode, set};
use crate::message::{Fields, Header, Put as _, low};
use crate::open_files::open_flags;
use crate::server::Server;
use crate::tree::BENEATH;

/// The path of a descriptor's own file, with AT_EMPTY_PATH. Who confines the process can tell it from all that are not empty
/// by its place in memory, which cannot be written to.
pub static ITSELF: &CStr = c"";

/// Times as SETATTR has them.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
const AS_IT_IS: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };

impl Server {
    pub(crate) fn change(
        &mut self,
        header: &Header,
        mut fields: Fields<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let node = header.node;
        match header.opcode {
            opcode::SETATTR => self.set_attributes(node, fields, reply),
            opcode::CREATE => self.create(node, fields, reply),
            opcode::MKDIR => {
                let mode = mode(fields.u32()?);
                // The guest's umask, which it has applied.
                fields.skip(4)?;
                let name = fields.name()?;
                self.tree.check_writable(node)?;
                mkdirat(self.tree.file(node)?, name, mode)?;
                self.put_new(node, name, reply)
            }
            opcode::MKNOD => {
                let raw = fields.u32()?;
                // The device, which these have not, the guest's umask and padding.
                fields.skip(12)?;
                let name = fields.name()?;
                let kind = FileType::from_raw_mode(raw);
                if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
                    return Err(Errno::PERM);
                }
                self.tree.check_writable(node)?;
                mknodat(self.tree.file(node)?, name, kind, mode(raw), 0)?;
                self.put_new(node, name, reply)
            }
            opcode::SYMLINK => {
                let name = fields.name()?;
                let target = fields.text()?;
                self.tree.check_writable(node)?;
                symlinkat(target, self.tree.file(node)?, name)?;
                self.put_new(node, name, reply)
            }
            opcode::LINK => {
                let linked = fields.u64()?;
                let name = fields.name()?;
                self.tree.check_writable(node)?;
                self.tree.check_writable(linked)?;
                self.tree.link_to(linked, node, name)?;
                self.put_new(node, name, reply)
            }
            opcode::UNLINK | opcode::RMDIR => {
                let name = fields.name()?;
                let folder = header.opcode == opcode::RMDIR;
                self.tree.check_writable(node)?;
                let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                unlinkat(self.tree.file(node)?, name, flags)
            }
            opcode::RENAME | opcode::RENAME2 => {
                let into = fields.u64()?;
                let mut flags = RenameFlags::empty();
                if header.opcode == opcode::RENAME2 {
                    flags = RenameFlags::from_bits_retain(fields.u32()?);
                    fields.skip(4)?;
                }
                let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
                if !known.contains(flags) {
                    return Err(Errno::INVAL);
                }
                let (from, to) = (fields.name()?, fields.name()?);
                self.tree.check_writable(node)?;
                self.tree.check_writable(into)?;
                renameat_with(self.tree.file(node)?, from, self.tree.file(into)?, to, flags)?;
                self.tree.moved((node, from), (into, to), flags.contains(RenameFlags::EXCHANGE));
                Ok(())
            }
            opcode::WRITE => {
                let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
                // Flags of the write, the lock's owner, flags of the file, padding.
                fields.skip(20)?;
                let data = fields.rest();
                if data.len() != size as usize || size > MAX_IO {
                    return Err(Errno::INVAL);
                }
                let count = pwrite(self.open.get(handle)?, data, offset)?;
                reply.put32(low(count as u64));
                reply.put32(0);
                Ok(())
            }
            opcode::FALLOCATE => {
                let (handle, offset, len) = (fields.u64()?, fields.u64()?, fields.u64()?);
                let flags = FallocateFlags::from_bits_retain(fields.u32()?);
                let known = FallocateFlags::KEEP_SIZE
                    | FallocateFlags::PUNCH_HOLE
                    | FallocateFlags::ZERO_RANGE;
                if !known.contains(flags) {
                    return Err(Errno::OPNOTSUPP);
                }
                fallocate(self.open.get(handle)?, flags, offset, len)
            }
            // The guest does not ask again.
            _ => Err(Errno::NOSYS),
        }
    }

    /// The entry that was just made.
    fn put_new(&mut self, parent: u64, name: &[u8], reply: &mut Vec<u8>) -> Result<(), Errno> {
        let found = self.tree.look_up(parent, name)?;
        self.put_entry(reply, found);
        Ok(())
    }

    fn create(
        &mut self,
        parent: u64,
        mut fields: Fields<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (raw, mode) = (fields.u32()?, mode(fields.u32()?));
        // The guest's umask, which it has applied, and padding.
        fields.skip(8)?;
        let name = fields.name()?;
        self.tree.check_writable(parent)?;
        let flags = open_flags(raw);
        // Only what is made here is opened by its name: what is there may be anything.
        let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = openat2(self.tree.file(parent)?, name, new, mode, BENEATH);
        let found = match &made {
            Err(Errno::EXIST) if !OFlags::from_bits_truncate(raw).contains(OFlags::EXCL) => {
                self.tree.look_up(parent, name)?
            }
            Err(error) => return Err(*error),
            Ok(_) => self.tree.look_up(parent, name)?,
        };
        let file = match made {
            Ok(file) => file,
            Err(_) => self.tree.open(found.0, flags)?,
        };
        self.put_entry(reply, found);
        self.put_open(reply, found.0, file, false);
        Ok(())
    }

    fn set_attributes(
        &mut self,
        node: u64,
        mut fields: Fields<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let valid = fields.u32()?;
        fields.skip(4)?;
        let (handle, size) = (fields.u64()?, fields.u64()?);
        // The lock's owner.
        fields.skip(8)?;
        let seconds = [fields.u64()?, fields.u64()?];
        // The time of the change of attributes, which is always now.
        fields.skip(8)?;
        let nanoseconds = [fields.u32()?, fields.u32()?];
        fields.skip(4)?;
        let mode = mode(fields.u32()?);
        fields.skip(4)?;
        let (uid, gid) = (fields.u32()?, fields.u32()?);
        self.tree.check_writable(node)?;
        let has = |bit| valid & bit != 0;

        let stat = self.tree.stat(node)?;
        if has(set::MODE) {
            let found = stat.st_mode;
            let is_pipe =
                matches!(FileType::from_raw_mode(found), FileType::Fifo | FileType::Socket);
            // It has got its mode when it was made, and tar and cp set it once more.
            if !is_pipe || Mode::from_raw_mode(found) != mode {
                fchmod(self.anew(node)?, mode)?;
            }
        }
        let uid = (has(set::UID) && uid != stat.st_uid).then(|| Uid::from_raw(uid));
        let gid = (has(set::GID) && gid != stat.st_gid).then(|| Gid::from_raw(gid));
        if uid.is_some() || gid.is_some() {
            fchown(self.anew(node)?, uid, gid)?;
        }
        if has(set::SIZE) {
            if has(set::HANDLE) {
                ftruncate(self.open.get(handle)?, size)?;
            } else {
                ftruncate(self.tree.open(node, OFlags::WRONLY)?, size)?;
            }
        }
        if has(set::ATIME | set::MTIME) {
            let time = |given, now, index: usize| match (has(given), has(now)) {
                (true, true) => NOW,
                (true, false) => Timespec {
                    tv_sec: seconds[index] as i64,
                    tv_nsec: i64::from(nanoseconds[index]),
                },
                (false, _) => AS_IT_IS,
            };
            let times = Timestamps {
                last_access: time(set::ATIME, set::ATIME_NOW, 0),
                last_modification: time(set::MTIME, set::MTIME_NOW, 1),
            };
            // Of the file itself, which may be a link, a pipe, or one that nobody may open.
            utimensat(self.tree.file(node)?, ITSELF, &times, AtFlags::EMPTY_PATH)?;
        }
        self.put_attributes(reply, node)
    }

    /// A node's file, opened for whatever its owner may.
    fn anew(&mut self, node: u64) -> Result<OwnedFd, Errno> {
        match self.tree.open(node, OFlags::RDONLY) {
            Err(Errno::ACCESS) => match self.tree.open(node, OFlags::WRONLY) {
                Err(Errno::ISDIR) => Err(Errno::ACCESS),
                opened => opened,
            },
            Err(Errno::LOOP | Errno::NXIO) => Err(Errno::PERM),
            opened => opened,
        }
    }
}

/// The bits of a mode that chmod(2) sets, but for those by which whoever runs a program of the guest on the
/// host would have this process's rights.
fn mode(raw: u32) -> Mode {
    Mode::from_bits_truncate(raw & 0o1777)
}
