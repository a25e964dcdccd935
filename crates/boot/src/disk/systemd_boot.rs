//! The menu of systemd-boot: entries of the Boot Loader Specification on the EFI system partition and
//! on the extended boot loader partition, and the former's `loader.conf`.

use std::cmp::Ordering;

use super::bls::{Entry, entries, pairs};
use super::filesystem::Kind;
use super::pattern::matches;
use super::version::compare;
use super::volumes::{Choice, InitrdPart, Place, Volumes};

/// The largest `loader.conf`.
const MAX_FILE: u64 = 64 << 10;
/// What `architecture` is of a kernel that boots here.
const ARCHITECTURE: &str = "x64";

/// Folders of entries that are one menu, and the file that chooses of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Menu {
    pub(super) folders: Vec<Place>,
    pub(super) conf: Place,
}

/// An entry and the volume that it lies on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    entry: Entry,
    volume: usize,
}

impl Menu {
    /// The folders, for messages.
    pub(super) fn describe(&self, volumes: &Volumes) -> String {
        let folders: Vec<String> = self.folders.iter().map(|f| volumes.describe(f)).collect();
        folders.join(" and ")
    }

    /// What the default entry boots.
    ///
    /// # Errors
    ///
    /// Why none does.
    pub(super) fn boot(&self, volumes: &Volumes) -> Result<Choice, String> {
        let mut items = Vec::new();
        for folder in &self.folders {
            let volume = folder.volume;
            let found = entries(volumes, folder).into_iter();
            items.extend(found.map(|entry| Item { entry, volume }).filter(|i| i.is_shown(volumes)));
        }
        let by = self.describe(volumes);
        items.sort_by(|a, b| order(&a.entry, &b.entry));
        let conf = volumes.read(&self.conf, MAX_FILE).unwrap_or_default();
        let default = default(&items, &String::from_utf8_lossy(&conf));
        let Some(item) = default else { return Err(format!("{by} has no entry that boots Linux")) };
        if !item.entry.linux.is_empty() {
            return Ok(item.choice());
        }
        // A program of the firmware cannot be run: the next entry that boots Linux has to do.
        let Some(next) = items.iter().find(|item| !item.entry.linux.is_empty()) else {
            return Err(format!("{by} has no entry that boots Linux"));
        };
        tracing::warn!(
            "{by}: the default entry, {}, boots the program {} of the firmware, which is not here: \
             {} is booted instead",
            item.entry.id,
            item.entry.efi,
            next.entry.id
        );
        Ok(next.choice())
    }
}

impl Item {
    /// Whether systemd-boot shows it: for this architecture, and what it boots is there.
    fn is_shown(&self, volumes: &Volumes) -> bool {
        let Entry { architecture, linux, efi, .. } = &self.entry;
        let file = if linux.is_empty() { efi } else { linux };
        let fits = architecture.is_empty() || architecture.eq_ignore_ascii_case(ARCHITECTURE);
        let shown = fits
            && !file.is_empty()
            && matches!(volumes.kind(&self.place(file)), Ok(Kind::File(_)));
        if fits && !shown {
            tracing::debug!(id = self.entry.id, file, "a boot entry whose file is not there");
        }
        shown
    }

    fn place(&self, path: &str) -> Place {
        let slash = if path.starts_with('/') { "" } else { "/" };
        Place { volume: self.volume, path: format!("{slash}{path}") }
    }

    fn choice(&self) -> Choice {
        // Some write several on one line.
        let initrds = self.entry.initrds.iter().flat_map(|line| line.split_whitespace());
        Choice {
            title: self.entry.title.clone(),
            kernel: self.place(&self.entry.linux),
            initrds: initrds
                .map(|path| InitrdPart { name: None, place: self.place(path) })
                .collect(),
            cmdline: self.entry.options.join(" "),
        }
    }
}

/// The specification's order, the one to boot first.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let is_bad = |entry: &Entry| entry.tries.is_some_and(|tries| tries.left == 0);
    let by_key = match (a.sort_key.is_empty(), b.sort_key.is_empty()) {
        (false, false) => a
            .sort_key
            .cmp(&b.sort_key)
            .then_with(|| a.machine_id.cmp(&b.machine_id))
            .then_with(|| compare(&b.version, &a.version)),
        // Those with a key are before those without.
        (no_key_a, no_key_b) => no_key_a.cmp(&no_key_b),
    };
    let by_tries = || match (a.tries, b.tries) {
        (Some(a), Some(b)) => b.left.cmp(&a.left).then(a.done.cmp(&b.done)),
        _ => Ordering::Equal,
    };
    let (id_a, id_b) = (id(a), id(b));
    is_bad(a)
        .cmp(&is_bad(b))
        .then(by_key)
        .then_with(|| compare(&id_b, &id_a))
        .then_with(by_tries)
        .then_with(|| id_b.cmp(&id_a))
}

/// What systemd-boot calls it.
fn id(entry: &Entry) -> String {
    format!("{}.conf", entry.id.to_lowercase())
}

/// The entry that `loader.conf` makes the default, else the first in order.
fn default<'a>(items: &'a [Item], loader_conf: &str) -> Option<&'a Item> {
    let pattern = pairs(loader_conf).filter(|(key, _)| *key == "default").last();
    let wanted = pattern.and_then(|(_, pattern)| {
        // Older versions had no suffix in it.
        let fits =
            |item: &&Item| matches(pattern, &id(&item.entry)) || matches(pattern, &item.entry.id);
        items.iter().find(fits)
    });
    wanted.or(items.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(name: &str, text: &str) -> Item {
        let entry = Entry::parse(name, &format!("linux /vmlinuz\n{text}")).unwrap();
        Item { entry, volume: 0 }
    }

    fn sorted(mut items: Vec<Item>) -> Vec<Item> {
        items.sort_by(|a, b| order(&a.entry, &b.entry));
        items
    }

    #[test]
    fn the_newest_version_of_the_first_key_is_booted() {
        let items = sorted(vec![
            item("z.conf", "version 9"),
            item("b.conf", "sort-key debian\nversion 6.1.0-9"),
            item("c.conf", "sort-key debian\nversion 6.1.0-10"),
            item("d.conf", "sort-key arch\nversion 1"),
            item("m.conf", "sort-key arch\nmachine-id 2\nversion 3"),
            item("e+0-3.conf", "sort-key arch\nversion 2"),
            item("y-1.10.conf", ""),
            item("y-1.9.conf", ""),
        ]);

        let ids: Vec<&str> = items.iter().map(|item| &*item.entry.id).collect();
        assert_eq!(ids, ["d", "m", "c", "b", "z", "y-1.10", "y-1.9", "e"]);
    }

    #[test]
    fn loader_conf_chooses_by_pattern() {
        let items = sorted(vec![
            item("arch-6.1.conf", ""),
            item("arch-6.9.conf", ""),
            item("zeta+2.conf", ""),
        ]);
        for (conf, id) in [
            ("", "zeta"),
            ("timeout 3\ndefault arch-*", "arch-6.9"),
            ("default arch-6.1.conf", "arch-6.1"),
            ("default arch-6.[0-5]*", "arch-6.1"),
            ("default arch-?.9.conf", "arch-6.9"),
            ("default none", "zeta"),
            ("default @saved", "zeta"),
            ("default arch-6.1.conf\ndefault zeta.conf", "zeta"),
        ] {
            assert_eq!(default(&items, conf).unwrap().entry.id, id, "{conf}");
        }
        assert_eq!(default(&[], ""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_an_entry_or_none(name in "[a-z+0-9-]{0,8}(\\.conf)?", text in ".*") {
            let entry = Entry::parse(&name, &text);
            let items: Vec<Item> = entry.map(|entry| Item { entry, volume: 0 }).into_iter().collect();
            let _ = default(&items, &text);
        }
    }
}
