//! Entries of the Boot Loader Specification, type 1 (UAPI.1), and `loader.conf`.

use std::cmp::Ordering;

use super::version::compare;
use super::volumes::{Choice, Place, Volumes};

/// The largest entry, and the largest `loader.conf`.
const MAX_FILE: u64 = 64 << 10;
/// Entries of one directory.
const MAX_ENTRIES: usize = 1024;
/// What `architecture` is of a kernel that boots here.
const ARCHITECTURE: &str = "x64";

/// An entry that boots Linux.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Entry {
    /// Its file's name without `.conf` and without the counters of tries.
    pub(super) id: String,
    pub(super) title: String,
    version: String,
    machine_id: String,
    sort_key: String,
    linux: String,
    initrds: Vec<String>,
    options: Vec<String>,
    /// Every try has been used up without a boot that was good.
    bad: bool,
}

impl Entry {
    /// Reads an entry's file; `None` if it does not boot Linux on this architecture.
    fn parse(file_name: &str, text: &str) -> Option<Self> {
        let id = file_name.strip_suffix(".conf")?;
        let (id, bad) = without_counters(id);
        let mut entry = Self { id: id.to_owned(), bad, ..Self::default() };
        for (key, value) in pairs(text) {
            let value = value.to_owned();
            match key {
                "title" => entry.title = value,
                "version" => entry.version = value,
                "machine-id" => entry.machine_id = value,
                "sort-key" => entry.sort_key = value,
                "linux" => entry.linux = value,
                // Some write several on one line.
                "initrd" => {
                    entry.initrds.extend(value.split_whitespace().map(str::to_owned));
                }
                "options" => entry.options.push(value),
                "architecture" if !value.eq_ignore_ascii_case(ARCHITECTURE) => return None,
                _ => {}
            }
        }
        if entry.title.is_empty() {
            entry.title.clone_from(&entry.id);
        }
        (!entry.linux.is_empty()).then_some(entry)
    }

    /// What it boots, from the volume that it lies on. `substitute` gives variables their values.
    pub(super) fn choice(&self, volume: usize, substitute: &dyn Fn(&str) -> String) -> Choice {
        let place = |path: &String| {
            let path = substitute(path);
            let slash = if path.starts_with('/') { "" } else { "/" };
            Place { volume, path: format!("{slash}{path}") }
        };
        let initrds = self.initrds.iter().map(place);
        Choice {
            title: self.title.clone(),
            kernel: place(&self.linux),
            // A variable may have no value.
            initrds: initrds.filter(|initrd| initrd.path != "/").collect(),
            cmdline: substitute(&self.options.join(" ")).trim().to_owned(),
        }
    }
}

/// The keys and values of a file's lines.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (key, value) = line.split_once(|c: char| c.is_ascii_whitespace())?;
        Some((key, value.trim())).filter(|(_, value)| !value.is_empty())
    })
}

/// Takes `+LEFT` or `+LEFT-DONE` off a name; and whether no tries are left.
fn without_counters(name: &str) -> (&str, bool) {
    let Some((start, counters)) = name.rsplit_once('+') else { return (name, false) };
    let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
    match (left.parse::<u32>(), done.parse::<u32>()) {
        (Ok(left), Ok(_)) => (start, left == 0),
        _ => (name, false),
    }
}

/// The entries of a directory, in no order.
pub(super) fn entries(volumes: &Volumes, folder: &Place) -> Vec<Entry> {
    let Ok(mut names) = volumes.list(folder) else { return Vec::new() };
    names.retain(|name| name.ends_with(".conf"));
    names.sort();
    names.truncate(MAX_ENTRIES);
    let read = |name: String| {
        let place = Place { path: format!("{}/{name}", folder.path), ..folder.clone() };
        match volumes.read(&place, MAX_FILE) {
            Ok(bytes) => Entry::parse(&name, &String::from_utf8_lossy(&bytes)),
            Err(error) => {
                tracing::warn!(file = volumes.describe(&place), %error, "a boot entry is left out");
                None
            }
        }
    };
    names.into_iter().filter_map(read).collect()
}

/// In the specification's order, the one to boot first.
fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| {
        let by_key = match (a.sort_key.is_empty(), b.sort_key.is_empty()) {
            (false, false) => a
                .sort_key
                .cmp(&b.sort_key)
                .then(a.machine_id.cmp(&b.machine_id))
                .then(compare(&b.version, &a.version)),
            // Those with a key are before those without.
            (no_key_a, no_key_b) => no_key_a.cmp(&no_key_b),
        };
        a.bad.cmp(&b.bad).then(by_key).then_with(|| newest_first(a, b))
    });
    entries
}

/// In the order of GRUB's `blscfg`: by file name, the newest version first.
pub(super) fn by_file_name(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(newest_first);
    entries
}

fn newest_first(a: &Entry, b: &Entry) -> Ordering {
    compare(&b.id, &a.id).then(b.id.cmp(&a.id))
}

/// The entry that `loader.conf` makes the default, else the first in order.
pub(super) fn default_entry(entries: Vec<Entry>, loader_conf: &str) -> Option<Entry> {
    let entries = sorted(entries);
    let pattern = pairs(loader_conf).filter(|(key, _)| *key == "default").last();
    let wanted = pattern.and_then(|(_, pattern)| {
        // The id that the specification means has the suffix.
        let fits = |entry: &&Entry| {
            matches(pattern, &entry.id) || matches(pattern, &format!("{}.conf", entry.id))
        };
        entries.iter().find(fits)
    });
    wanted.or(entries.first()).cloned()
}

/// Reads `loader.conf`; an empty one if there is none.
pub(super) fn loader_conf(volumes: &Volumes, place: &Place) -> String {
    let bytes = volumes.read(place, MAX_FILE).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A shell pattern with `*` and `?`; case does not count.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star was and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || c.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, text: &str) -> Entry {
        Entry::parse(name, &format!("linux /vmlinuz\n{text}")).unwrap()
    }

    fn ids(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| &*entry.id).collect()
    }

    #[test]
    fn an_entry_has_title_kernel_initrds_and_options() {
        let entry = Entry::parse(
            "debian-6.1.conf",
            "# made by hand\ntitle\tDebian 12 \nlinux /vmlinuz-6.1\ninitrd /ucode.img\n\
             initrd /initrd-6.1 $tuned\noptions root=/dev/vda2 ro\noptions quiet\n\
             architecture X64\n",
        );

        let choice = entry.unwrap().choice(3, &|text| text.replace("$tuned", ""));
        let place = |path: &str| Place { volume: 3, path: path.into() };
        assert_eq!(
            choice,
            Choice {
                title: "Debian 12".into(),
                kernel: place("/vmlinuz-6.1"),
                initrds: vec![place("/ucode.img"), place("/initrd-6.1")],
                cmdline: "root=/dev/vda2 ro quiet".into(),
            }
        );
    }

    #[test]
    fn entries_of_others_are_left_out() {
        for (name, text) in [
            ("a.conf", "efi /EFI/Linux/x.efi"),
            ("a.conf", "linux /vmlinuz\narchitecture aa64"),
            ("a.conf~", "linux /vmlinuz"),
            ("a.conf", ""),
        ] {
            assert_eq!(Entry::parse(name, text), None, "{name}: {text}");
        }
    }

    #[test]
    fn the_newest_version_of_the_first_key_is_booted() {
        let entries = vec![
            entry("z.conf", "version 9"),
            entry("b.conf", "sort-key debian\nversion 6.1.0-9"),
            entry("c.conf", "sort-key debian\nversion 6.1.0-10"),
            entry("d.conf", "sort-key arch\nversion 1"),
            entry("e+0-3.conf", "sort-key arch\nversion 2"),
            entry("y-1.10.conf", ""),
            entry("y-1.9.conf", ""),
        ];

        assert_eq!(ids(&sorted(entries)), ["d", "c", "b", "z", "y-1.10", "y-1.9", "e"]);
    }

    #[test]
    fn loader_conf_chooses_by_pattern() {
        let entries =
            vec![entry("arch-6.1.conf", ""), entry("arch-6.9.conf", ""), entry("zeta+2.conf", "")];
        for (conf, id) in [
            ("", "zeta"),
            ("timeout 3\ndefault arch-*", "arch-6.9"),
            ("default arch-6.1.conf", "arch-6.1"),
            ("default none", "zeta"),
            ("default @saved", "zeta"),
        ] {
            assert_eq!(default_entry(entries.clone(), conf).unwrap().id, id, "{conf}");
        }
        assert_eq!(default_entry(Vec::new(), ""), None);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, holds) in [
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a?c", "aBC", true),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, text), holds, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_entry_or_none(name in "[a-z+0-9-]{0,8}(\\.conf)?", text in ".*") {
            let entries = Entry::parse(&name, &text).into_iter().collect();
            let _ = default_entry(entries, &text);
        }

        #[test]
        fn long_patterns_take_no_long_time(stars in 1_usize..200) {
            let pattern = "*a".repeat(stars);
            prop_assert!(!matches(&pattern, &"a".repeat(stars - 1)));
        }
    }
}
