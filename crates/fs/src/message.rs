//! The bytes of requests and replies.

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::abi::IN_HEADER;

/// What all requests begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
}

/// Reads the header of a request; none of one that is shorter, or not as long as it says.
pub(crate) fn header(request: &[u8]) -> Option<(Header, Fields<'_>)> {
    let (header, body) = request.split_at_checked(IN_HEADER)?;
    let mut fields = Fields(header);
    let len = fields.u32().ok()?;
    let opcode = fields.u32().ok()?;
    let (unique, node) = (fields.u64().ok()?, fields.u64().ok()?);
    let whole = usize::try_from(len) == Ok(request.len());
    whole.then_some((Header { opcode, unique, node }, Fields(body)))
}

/// What is left of a request. A request that ends too early is EINVAL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// Passes over fields that say nothing here.
    pub(crate) fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::INVAL)?;
        Ok(())
    }

    /// Bytes up to a zero.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Errno> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Errno::INVAL)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    /// The name of an entry of a folder: one component, and none of those that lead elsewhere.
    pub(crate) fn name(&mut self) -> Result<&'a [u8], Errno> {
        match self.text()? {
            b"" | b"." | b".." => Err(Errno::INVAL),
            name if name.contains(&b'/') => Err(Errno::INVAL),
            name if name.len() > 255 => Err(Errno::NAMETOOLONG),
            name => Ok(name),
        }
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Appends numbers to a reply.
pub(crate) trait Put {
    fn put32(&mut self, number: u32);
    fn put64(&mut self, number: u64);
    /// `fuse_attr`, with an inode number.
    fn put_attributes(&mut self, inode: u64, stat: &Stat);
}

impl Put for Vec<u8> {
    fn put32(&mut self, number: u32) {
        self.extend(number.to_le_bytes());
    }

    fn put64(&mut self, number: u64) {
        self.extend(number.to_le_bytes());
    }

    fn put_attributes(&mut self, inode: u64, stat: &Stat) {
        self.put64(inode);
        self.put64(stat.st_size as u64);
        self.put64(stat.st_blocks as u64);
        self.put64(stat.st_atime as u64);
        self.put64(stat.st_mtime as u64);
        self.put64(stat.st_ctime as u64);
        for nanoseconds in [stat.st_atime_nsec, stat.st_mtime_nsec, stat.st_ctime_nsec] {
            self.put32(low(nanoseconds));
        }
        self.put32(stat.st_mode);
        self.put32(low(stat.st_nlink));
        self.put32(stat.st_uid);
        self.put32(stat.st_gid);
        self.put32(low(stat.st_rdev));
        self.put32(low(stat.st_blksize as u64));
        self.put32(0);
    }
}

/// The low half: what the field of a structure has room for.
pub(crate) const fn low(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}
