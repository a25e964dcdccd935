//! What the guest knows of the shares: nodes, each a file of the host that it has looked up.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, fstat, linkat, openat,
    openat2, statx,
};
use rustix::io::Errno;

use crate::abi::ROOT;

/// No component of a name leads out of its folder, whatever is there.
pub(crate) const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// Where a file's device is in its number: numbers of inodes are unique on their device alone.
const DEVICE_SHIFT: u32 = 48;

/// A folder of the host that is shown.
#[derive(Debug)]
pub struct Share {
    name: Vec<u8>,
    folder: Rc<OwnedFd>,
    writable: bool,
    valid: Duration,
}

impl Share {
    /// The folder, under this name where there are several. What the guest knows of it is asked for again
    /// after a second.
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, folder: OwnedFd, writable: bool) -> Self {
        let valid = Duration::from_secs(1);
        Self { name: name.into(), folder: Rc::new(folder), writable, valid }
    }

    /// The folder, of which the guest asks again only after this time. Data are kept as long.
    #[must_use]
    pub fn valid_for(self, valid: Duration) -> Self {
        Self { valid, ..self }
    }
}

/// What a file is told apart from others by: device, inode and when that was made, since the number of one that
/// is gone is given to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    made: (i64, u32),
}

impl Identity {
    fn of(file: &OwnedFd, stat: &Stat) -> Result<Self, Errno> {
        // Zero where the file system does not know.
        let made = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?.stx_btime;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino, made: (made.tv_sec, made.tv_nsec) })
    }
}

/// A file that the guest has looked up.
#[derive(Debug)]
struct Node {
    /// Can do nothing but be looked at, looked up in, and opened anew (O_PATH). Closed while others are
    /// used more, and then found again by `place`.
    file: Option<Rc<OwnedFd>>,
    /// Folder and name that it was looked up by last.
    place: (u64, Vec<u8>),
    /// When it was used last, by the count of uses.
    used: u64,
    kind: FileType,
    share: usize,
    identity: Identity,
    /// How often the guest has looked it up, less what it has forgotten.
    lookups: u64,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Tree {
    shares: Vec<Share>,
    /// The root is a folder of shares and not a share itself.
    several: bool,
    nodes: HashMap<u64, Node>,
    by_identity: HashMap<(usize, Identity), u64>,
    devices: Vec<u64>,
    next: u64,
    /// Files of nodes that are open, and how many may be.
    open: usize,
    limit: usize,
    /// Uses of nodes so far.
    uses: u64,
    /// `/proc/self/fd`, by which files are opened anew.
    descriptors: OwnedFd,
}

impl Tree {
    pub(crate) fn new(shares: Vec<Share>, several: bool, descriptors: OwnedFd) -> Self {
        Self {
            shares,
            several,
            nodes: HashMap::new(),
            by_identity: HashMap::new(),
            devices: Vec::new(),
            next: ROOT + 1,
            open: 0,
            limit: usize::MAX,
            uses: 0,
            descriptors,
        }
    }

    /// Keeps at most so many nodes' files open.
    pub(crate) fn limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Forgets what the guest knows.
    pub(crate) fn clear(&mut self) {
        self.open = 0;
        self.nodes.clear();
        self.by_identity.clear();
    }

    /// Whether `node` is the folder of shares.
    pub(crate) fn is_top(&self, node: u64) -> bool {
        self.several && node == ROOT
    }

    /// Names of the shares, in their folder.
    pub(crate) fn share_names(&self) -> impl Iterator<Item = &[u8]> {
        self.shares.iter().map(|share| share.name.as_slice())
    }

    fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::STALE)
    }

    /// A node's file. The folder of shares has none.
    pub(crate) fn file(&mut self, node: u64) -> Result<Rc<OwnedFd>, Errno> {
        // Up to a folder whose file is open, then down again. The guest decides how deep that is.
        let mut closed = Vec::new();
        let mut at = node;
        let mut file = loop {
            if self.is_top(at) {
                break None;
            }
            if let Some(open) = self.open_file(at)? {
                break Some(open);
            }
            if closed.len() == self.nodes.len() {
                // The host has moved them meanwhile, so that each seems to be in the other.
                return Err(Errno::STALE);
            }
            closed.push(at);
            at = self.node(at)?.place.0;
        };
        for node in closed.into_iter().rev() {
            file = Some(self.open_again(node, file.as_deref())?);
        }
        file.ok_or(Errno::PERM)
    }

    /// A node's file, if it is open, which is used now.
    fn open_file(&mut self, node: u64) -> Result<Option<Rc<OwnedFd>>, Errno> {
        if node == ROOT {
            return Ok(self.shares.first().map(|share| share.folder.clone()));
        }
        self.uses += 1;
        let known = self.nodes.get_mut(&node).ok_or(Errno::STALE)?;
        known.used = self.uses;
        Ok(known.file.clone())
    }

    /// Opens a node's file, which is in `folder`, or for `None` the folder of shares.
    fn open_again(&mut self, node: u64, folder: Option<&OwnedFd>) -> Result<Rc<OwnedFd>, Errno> {
        let known = self.node(node)?;
        let identity = known.identity;
        let file = Rc::new(self.entry(folder, &known.place.1)?);
        // What is there now is another file.
        if Identity::of(&file, &fstat(&file)?)? != identity {
            return Err(Errno::STALE);
        }
        self.make_room();
        self.open += 1;
        self.nodes.get_mut(&node).ok_or(Errno::STALE)?.file = Some(file.clone());
        Ok(file)
    }

    /// Opens what is at a name of a folder, to do nothing with it yet. A link is not followed.
    fn find(&mut self, parent: u64, name: &[u8]) -> Result<OwnedFd, Errno> {
        let folder = if self.is_top(parent) { None } else { Some(self.file(parent)?) };
        self.entry(folder.as_deref(), name)
    }

    /// [`Tree::find`] in a folder that is open, or for `None` in that of shares.
    fn entry(&self, folder: Option<&OwnedFd>, name: &[u8]) -> Result<OwnedFd, Errno> {
        let Some(folder) = folder else {
            let share = self.shares.iter().find(|share| share.name == name).ok_or(Errno::NOENT)?;
            return rustix::io::fcntl_dupfd_cloexec(&share.folder, 0);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(folder, name, flags, Mode::empty(), BENEATH)
    }

    /// Closes files of nodes that were not used for the longest time, if there are as many as may be.
    fn make_room(&mut self) {
        if self.open < self.limit {
            return;
        }
        let open = self.nodes.values().filter(|node| node.file.is_some());
        let mut uses: Vec<u64> = open.map(|node| node.used).collect();
        uses.sort_unstable();
        // Several at a time, since each look at all of them takes long.
        let last = uses.get(uses.len() / 4).copied().unwrap_or(0);
        for node in self.nodes.values_mut().filter(|node| node.used <= last) {
            self.open -= usize::from(node.file.take().is_some());
        }
    }

    fn share_of(&self, node: u64) -> Result<usize, Errno> {
        match node {
            ROOT if self.several => Err(Errno::ROFS),
            ROOT => Ok(0),
            _ => Ok(self.node(node)?.share),
        }
    }

    /// How long the guest may keep what it knows of a node.
    pub(crate) fn valid(&self, node: u64) -> Duration {
        let share = self.share_of(node).ok().and_then(|share| self.shares.get(share));
        share.map_or(Duration::from_secs(1), |share| share.valid)
    }

    /// Refuses changes where they are not allowed.
    ///
    /// # Errors
    /// EROFS there.
    pub(crate) fn check_writable(&self, node: u64) -> Result<(), Errno> {
        let writable = self.shares.get(self.share_of(node)?).is_some_and(|share| share.writable);
        if writable { Ok(()) } else { Err(Errno::ROFS) }
    }

    /// Looks an entry of a folder up, and counts that.
    pub(crate) fn look_up(&mut self, parent: u64, name: &[u8]) -> Result<(u64, Stat), Errno> {
        let share = if self.is_top(parent) {
            self.shares.iter().position(|share| share.name == name).ok_or(Errno::NOENT)?
        } else {
            self.share_of(parent)?
        };
        let file = self.find(parent, name)?;
        let stat = fstat(&file)?;
        let identity = Identity::of(&file, &stat)?;
        let place = (parent, name.to_vec());
        self.uses += 1;
        if let Some(&known) = self.by_identity.get(&(share, identity))
            && let Some(node) = self.nodes.get_mut(&known)
        {
            node.lookups += 1;
            node.place = place;
            node.used = self.uses;
            return Ok((known, stat));
        }
        self.make_room();
        let number = self.next;
        self.next += 1;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let file = Some(Rc::new(file));
        let node = Node { file, place, used: self.uses, kind, share, identity, lookups: 1 };
        self.nodes.insert(number, node);
        self.open += 1;
        self.by_identity.insert((share, identity), number);
        Ok((number, stat))
    }

    /// An entry has another place now, and where they are `exchanged`, what was there has its own.
    pub(crate) fn moved(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), exchanged: bool) {
        let is_there = |place: &(u64, Vec<u8>), at: (u64, &[u8])| (place.0, &place.1[..]) == at;
        for node in self.nodes.values_mut() {
            if is_there(&node.place, from) {
                node.place = (to.0, to.1.to_vec());
            } else if exchanged && is_there(&node.place, to) {
                node.place = (from.0, from.1.to_vec());
            }
        }
    }

    /// The guest forgets so many lookups of a node.
    pub(crate) fn forget(&mut self, node: u64, lookups: u64) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0 {
            let key = (known.share, known.identity);
            if let Some(Node { file: Some(_), .. }) = self.nodes.remove(&node) {
                self.open -= 1;
            }
            self.by_identity.remove(&key);
        }
    }

    /// The attributes of a node's file.
    pub(crate) fn stat(&mut self, node: u64) -> Result<Stat, Errno> {
        match self.shares.first() {
            // Those of the first share's folder are as good as others.
            Some(share) if self.is_top(node) => fstat(&share.folder),
            _ => fstat(self.file(node)?),
        }
    }

    /// The number of a file's inode that the guest sees.
    pub(crate) fn inode(&mut self, stat: &Stat) -> u64 {
        let known = self.devices.iter().position(|&device| device == stat.st_dev);
        let device = known.unwrap_or_else(|| {
            self.devices.push(stat.st_dev);
            self.devices.len() - 1
        });
        stat.st_ino ^ (device as u64) << DEVICE_SHIFT
    }

    /// Opens a node's file anew. Only regular files and folders are opened: others are the guest's own.
    pub(crate) fn open(&mut self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        let file = self.file(node)?;
        let kind = if node == ROOT { FileType::Directory } else { self.node(node)?.kind };
        match kind {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NXIO),
        }
        let name = file.as_raw_fd().to_string();
        openat(&self.descriptors, name, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
    }

    /// Gives a node's file another name, by that which it has among the descriptors: the kernel follows
    /// that to the file itself.
    pub(crate) fn link_to(&mut self, node: u64, folder: u64, name: &[u8]) -> Result<(), Errno> {
        let (file, into) = (self.file(node)?, self.file(folder)?);
        let known_as = file.as_raw_fd().to_string();
        linkat(&self.descriptors, known_as, into, name, AtFlags::SYMLINK_FOLLOW)
    }
}
