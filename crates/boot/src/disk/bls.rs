//! Entries of the Boot Loader Specification, type 1 (UAPI.1).

use std::cmp::Ordering;

use super::version::compare;
use super::volumes::{Place, Volumes};

/// The largest entry.
const MAX_FILE: u64 = 64 << 10;
/// Entries of one directory.
const MAX_ENTRIES: usize = 1024;
/// What ends the name of an entry's file.
const SUFFIX: &str = ".conf";

/// How often an entry may still be tried, and was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tries {
    pub(super) left: u32,
    pub(super) done: u32,
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Entry {
    /// Its file's name without `.conf` and without the counters of tries.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) version: String,
    pub(super) machine_id: String,
    pub(super) sort_key: String,
    pub(super) architecture: String,
    pub(super) linux: String,
    /// A program of the firmware instead of a kernel.
    pub(super) efi: String,
    /// As they are written: there may be several in one.
    pub(super) initrds: Vec<String>,
    pub(super) options: Vec<String>,
    /// GRUB's parameters, `grub_arg`.
    pub(super) arguments: Vec<String>,
    pub(super) tries: Option<Tries>,
}

impl Entry {
    /// Reads an entry's file; `None` if its name is not that of one.
    pub(super) fn parse(file_name: &str, text: &str) -> Option<Self> {
        let id = file_name.strip_suffix(SUFFIX)?;
        let (id, tries) = without_counters(id);
        let mut entry = Self { id: id.to_owned(), tries, ..Self::default() };
        for (key, value) in pairs(text) {
            let value = value.to_owned();
            match key {
                "title" => entry.title = value,
                "version" => entry.version = value,
                "machine-id" => entry.machine_id = value,
                "sort-key" => entry.sort_key = value,
                "architecture" => entry.architecture = value,
                "linux" => entry.linux = value,
                "efi" | "uki" => entry.efi = value,
                "initrd" => entry.initrds.push(value),
                "options" => entry.options.push(value),
                "grub_arg" => entry.arguments.push(value),
                _ => {}
            }
        }
        if entry.title.is_empty() {
            entry.title.clone_from(&entry.id);
        }
        Some(entry)
    }
}

/// The keys and values of a file's lines.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (key, value) = line.split_once(|c: char| c.is_ascii_whitespace())?;
        Some((key, value.trim())).filter(|(_, value)| !value.is_empty())
    })
}

/// Takes `+LEFT` or `+LEFT-DONE` off a name.
fn without_counters(name: &str) -> (&str, Option<Tries>) {
    let counters = name.rsplit_once('+').and_then(|(start, counters)| {
        let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
        Some((start, Tries { left: left.parse().ok()?, done: done.parse().ok()? }))
    });
    counters.map_or((name, None), |(start, tries)| (start, Some(tries)))
}

/// The entries of a directory, in no order.
pub(super) fn entries(volumes: &Volumes, folder: &Place) -> Vec<Entry> {
    let Ok(mut names) = volumes.list(folder) else { return Vec::new() };
    names.retain(|name| name.ends_with(SUFFIX) && !name.starts_with('.'));
    names.sort();
    names.truncate(MAX_ENTRIES);
    let read = |name: String| {
        let place = Place { path: format!("{}/{name}", folder.path), ..folder.clone() };
        entry(volumes, &place, &name)
    };
    names.into_iter().filter_map(read).collect()
}

/// The entry of one file.
pub(super) fn entry(volumes: &Volumes, place: &Place, name: &str) -> Option<Entry> {
    match volumes.read(place, MAX_FILE) {
        Ok(bytes) => Entry::parse(name, &String::from_utf8_lossy(&bytes)),
        Err(error) => {
            tracing::warn!(file = volumes.describe(place), %error, "a boot entry is left out");
            None
        }
    }
}

/// Those that boot Linux in the order of GRUB's `blscfg`: by file name, the newest version first.
pub(super) fn by_file_name(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| !entry.linux.is_empty());
    entries.sort_by(newest_first);
    entries
}

fn newest_first(a: &Entry, b: &Entry) -> Ordering {
    compare(&b.id, &a.id).then_with(|| b.id.cmp(&a.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_title_kernel_initrds_and_options() {
        let entry = Entry::parse(
            "debian-6.1+2-1.conf",
            "# made by hand\ntitle\tDebian 12 \nlinux /vmlinuz-6.1\ninitrd /ucode.img\n\
             initrd /initrd-6.1 $tuned\noptions root=/dev/vda2 ro\noptions quiet\n\
             architecture X64\n",
        )
        .unwrap();

        assert_eq!((&*entry.id, &*entry.title), ("debian-6.1", "Debian 12"));
        assert_eq!((&*entry.linux, &*entry.architecture), ("/vmlinuz-6.1", "X64"));
        assert_eq!(entry.initrds, ["/ucode.img", "/initrd-6.1 $tuned"]);
        assert_eq!(entry.options, ["root=/dev/vda2 ro", "quiet"]);
        assert_eq!(entry.tries, Some(Tries { left: 2, done: 1 }));
    }

    #[test]
    fn a_plus_without_numbers_is_part_of_the_name() {
        for (name, id, tries) in [
            ("a+3", "a", Some(Tries { left: 3, done: 0 })),
            ("a+x", "a+x", None),
            ("a+0-3", "a", Some(Tries { left: 0, done: 3 })),
            ("a", "a", None),
        ] {
            assert_eq!(without_counters(name), (id, tries), "{name}");
        }
        assert_eq!(Entry::parse("a.conf~", "linux /x"), None);
    }
}
