//! The folder as it should be, and the steps that change it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

/// Names in a folder.
const NAMES: u64 = 12;
/// Folders within folders.
const DEPTH: usize = 3;
/// Bytes of a file at most.
const LONGEST: u64 = 300 << 10;

/// What has a name.
#[derive(Clone, PartialEq)]
enum Node {
    Folder,
    File(Vec<u8>),
    Link(String),
}

pub(crate) struct Model {
    root: PathBuf,
    /// By path from the root. Whatever has a name is in a folder that has one too.
    nodes: BTreeMap<String, Node>,
    random: u64,
}

impl Model {
    /// An empty folder, whose steps follow from the name.
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self { root: root.to_owned(), nodes: BTreeMap::new(), random: seed }
    }

    pub(crate) fn entries(&self) -> usize {
        self.nodes.len()
    }

    /// Marsaglia's xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len.div_ceil(8))
            .flat_map(|_| self.below(u64::MAX).to_le_bytes())
            .take(len as usize)
            .collect()
    }

    /// A path whose folder is there; it may have something already.
    fn path(&mut self) -> String {
        let mut path = format!("n{}", self.below(NAMES));
        for _ in 1..DEPTH {
            if self.nodes.get(&path) != Some(&Node::Folder) || self.below(3) == 0 {
                break;
            }
            path += &format!("/n{}", self.below(NAMES));
        }
        path
    }

    /// What the folder `path` has, however deep.
    fn below_of(&self, path: &str) -> Vec<String> {
        let start = format!("{path}/");
        self.nodes.keys().filter(|key| key.starts_with(&start)).cloned().collect()
    }

    /// One step, and a look at what it concerned.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        let path = self.path();
        let there = self.nodes.get(&path).cloned();
        let real = self.root.join(&path);
        let (what, done) = match (there, self.below(8)) {
            (None, 0) => {
                self.nodes.insert(path.clone(), Node::Folder);
                ("mkdir", fs::create_dir(&real))
            }
            (None, 1) => {
                let target = format!("n{}", self.below(NAMES));
                self.nodes.insert(path.clone(), Node::Link(target.clone()));
                ("symlink", symlink(target, &real))
            }
            (None, _) => {
                let len = self.below(LONGEST);
                let contents = self.bytes(len);
                let done = File::create_new(&real).and_then(|mut file| file.write_all(&contents));
                self.nodes.insert(path.clone(), Node::File(contents));
                ("create", done)
            }
            (Some(_), 0) => ("rename", self.rename(&path)),
            (Some(Node::Folder), 1) if self.below_of(&path).is_empty() => {
                self.nodes.remove(&path);
                ("rmdir", fs::remove_dir(&real))
            }
            (Some(Node::Folder), _) => return self.check(&path),
            (Some(_), 1) => {
                self.nodes.remove(&path);
                ("unlink", fs::remove_file(&real))
            }
            (Some(Node::Link(_)), _) => return self.check(&path),
            (Some(Node::File(contents)), kind) => ("write", self.change(&path, contents, kind)),
        };
        done.map_err(|error| format!("{what} {path}: {error}"))?;
        self.check(&path).map_err(|error| format!("after {what}: {error}"))
    }

    /// Changes a file: at its end, in the middle, its length, or all of it.
    fn change(&mut self, path: &str, mut contents: Vec<u8>, kind: u64) -> io::Result<()> {
        let real = self.root.join(path);
        let len = contents.len() as u64;
        let data = {
            let most = self.below(64 << 10) + 1;
            self.bytes(most)
        };
        let done = match kind {
            2 | 3 if len + (data.len() as u64) < LONGEST => {
                contents.extend(&data);
                OpenOptions::new()
                    .append(true)
                    .open(&real)
                    .and_then(|mut file| file.write_all(&data))
            }
            4 | 5 => {
                let at = self.below(len + 1);
                let end = at as usize + data.len();
                contents.resize(contents.len().max(end), 0);
                contents[at as usize..end].copy_from_slice(&data);
                let file = OpenOptions::new().write(true).open(&real);
                file.and_then(|file| file.write_all_at(&data, at).and_then(|()| file.sync_data()))
            }
            6 => {
                let new = self.below(LONGEST);
                contents.resize(new as usize, 0);
                OpenOptions::new().write(true).open(&real).and_then(|file| file.set_len(new))
            }
            _ => {
                contents = data;
                fs::write(&real, &contents)
            }
        };
        self.nodes.insert(path.to_owned(), Node::File(contents));
        done
    }

    /// Gives it another name, in the place of what may have that.
    fn rename(&mut self, path: &str) -> io::Result<()> {
        let to = self.path();
        let (node, children) = (self.nodes[path].clone(), self.below_of(path));
        let is_folder = node == Node::Folder;
        let deepest = children.iter().map(|child| child.matches('/').count()).max();
        let depth = deepest.map_or(0, |deepest| deepest - path.matches('/').count());
        let fits = match self.nodes.get(&to) {
            None => true,
            Some(Node::Folder) => is_folder && self.below_of(&to).is_empty(),
            Some(_) => !is_folder,
        };
        let within = to == path || to.starts_with(&format!("{path}/"));
        if !fits || within || to.matches('/').count() + depth >= DEPTH {
            return Ok(());
        }
        self.nodes.remove(path);
        self.nodes.insert(to.clone(), node);
        for child in children {
            if let Some(node) = self.nodes.remove(&child) {
                self.nodes.insert(format!("{to}{}", &child[path.len()..]), node);
            }
        }
        fs::rename(self.root.join(path), self.root.join(to))
    }

    /// Whether what has a path is what should have it.
    fn check(&self, path: &str) -> Result<(), String> {
        let real = self.root.join(path);
        let found = match fs::symlink_metadata(&real) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(found) if found.is_dir() => Ok(Some(Node::Folder)),
            Ok(found) if found.is_symlink() => {
                fs::read_link(&real).map(|to| Some(Node::Link(to.display().to_string())))
            }
            Ok(_) => fs::read(&real).map(|contents| Some(Node::File(contents))),
        };
        let found = found.map_err(|error| format!("{path}: {error}"))?;
        match found.as_ref() == self.nodes.get(path) {
            true => Ok(()),
            false => Err(format!("{path} is not what it should be")),
        }
    }

    /// The same of all, and that nothing else is there.
    pub(crate) fn check_all(&self) -> Result<(), String> {
        self.nodes.keys().try_for_each(|path| self.check(path))?;
        let count = count(&self.root).map_err(|error| error.to_string())?;
        match count == self.nodes.len() {
            true => Ok(()),
            false => Err(format!("{count} entries instead of {}", self.nodes.len())),
        }
    }
}

/// How many entries there are, however deep.
fn count(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += self::count(&entry.path())?;
        }
    }
    Ok(count)
}
