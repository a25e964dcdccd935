//! The "newc" cpio format that the kernel unpacks as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// What a path holds.
enum Entry {
    Directory,
    File { mode: u32, contents: Vec<u8> },
    Link { target: String },
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive being built. Entries come out in path order, with time stamps of
/// zero and counted inodes, so equal contents give equal bytes.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An archive with `/dev/console`, without which PID 1 starts with no output.
    pub(crate) fn with_console() -> Self {
        let mut archive = Self::default();
        archive.insert("dev/console", Entry::CharacterDevice { major: 5, minor: 1 });
        archive
    }

    /// Adds a regular file; its directories come by themselves.
    pub(crate) fn file(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        self.insert(path, Entry::File { mode, contents });
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Link { target: target.to_owned() });
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.insert(path, Entry::Directory);
    }

    /// Adds what a folder of the host has, but for what `left_out` says of a path in it.
    ///
    /// # Errors
    /// Something that cannot be read.
    pub(crate) fn tree(&mut self, folder: &Path, left_out: &dyn Fn(&str) -> bool) -> Result<()> {
        self.branch(folder, "", left_out)
    }

    fn branch(
        &mut self,
        folder: &Path,
        below: &str,
        left_out: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let at = folder.join(below);
        let entries = fs::read_dir(&at).with_context(|| format!("cannot read {}", at.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let path = Path::new(below).join(&name).display().to_string();
            if left_out(&path) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.directory(&path);
                self.branch(folder, &path, left_out)?;
            } else if kind.is_symlink() {
                self.link(&path, &fs::read_link(entry.path())?.display().to_string());
            } else {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                self.file(&path, mode, process::read(&entry.path())?);
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The bytes of the archive.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, entry)) in self.entries.iter().enumerate() {
            let (mode, device, contents): (u32, (u32, u32), &[u8]) = match entry {
                Entry::Directory => (S_IFDIR | 0o755, (0, 0), &[]),
                Entry::File { mode, contents } => (S_IFREG | mode, (0, 0), contents),
                Entry::Link { target } => (S_IFLNK | 0o777, (0, 0), target.as_bytes()),
                Entry::CharacterDevice { major, minor } => (S_IFCHR | 0o600, (*major, *minor), &[]),
            };
            write_entry(&mut out, index as u32 + 1, path, mode, device, contents);
        }
        write_entry(&mut out, 0, "TRAILER!!!", 0, (0, 0), &[]);
        out
    }
}

/// Thirteen fields of eight hexadecimal digits, name and contents, each padded to
/// a multiple of four bytes.
fn write_entry(
    out: &mut Vec<u8>,
    inode: u32,
    path: &str,
    mode: u32,
    (major, minor): (u32, u32),
    contents: &[u8],
) {
    let (uid, gid, links, time, own_device, check) = (0, 0, 1, 0, (0, 0), 0);
    let fields = [
        inode,
        mode,
        uid,
        gid,
        links,
        time,
        contents.len() as u32,
        own_device.0,
        own_device.1,
        major,
        minor,
        path.len() as u32 + 1,
        check,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(contents);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::Archive;

    #[test]
    fn equal_contents_give_equal_bytes_whatever_the_order() {
        let mut one = Archive::with_console();
        one.file("/init", 0o755, b"x".to_vec());
        one.link("/bin/sh", "busybox");
        let mut other = Archive::with_console();
        other.link("bin/sh", "busybox");
        other.file("init", 0o755, b"x".to_vec());

        assert_eq!(one.finish(), other.finish());
    }

    #[test]
    fn every_header_is_aligned_and_the_trailer_is_last() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"12345".to_vec());

        let bytes = archive.finish();

        let second = 110 + 2 + 5 + 3;
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[second..second + 6], b"070701");
        assert_eq!(&bytes[second + 110..second + 120], b"TRAILER!!!");
    }

    #[test]
    fn directories_of_a_path_precede_it() {
        let mut archive = Archive::default();
        archive.file("lib/modules/x.ko", 0o644, Vec::new());

        let names: Vec<&String> = archive.entries.keys().collect();

        assert_eq!(names, ["lib", "lib/modules", "lib/modules/x.ko"]);
    }

    #[test]
    fn a_tree_is_what_the_folder_has_without_what_is_left_out() {
        let folder = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        fs::create_dir_all(folder.join("usr/share/doc")).unwrap();
        fs::write(folder.join("usr/tool"), "x").unwrap();
        symlink("tool", folder.join("usr/alias")).unwrap();
        fs::write(folder.join("usr/share/doc/README"), "x").unwrap();
        let mut archive = Archive::default();

        archive.tree(&folder, &|path| path == "usr/share/doc").unwrap();

        let names: Vec<&String> = archive.entries.keys().collect();
        assert_eq!(names, ["usr", "usr/alias", "usr/share", "usr/tool"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
