//! `blscfg`: the entries of the Boot Loader Specification become menu entries. Fedora's GRUB has it,
//! and GNU GRUB 2.14 with other options.

use std::fmt::Write;

use super::super::menu::MenuEntry;
use super::super::run::{FILE_COST, Run, Stop};
use super::super::status::Status;
use super::entries::MAX_ENTRIES;
use super::options::{Dashes, NotRun, Spec, parse};
use crate::disk::bls;
use crate::disk::volumes::Place;

const OPTIONS: [Spec; 5] = [
    Spec::value("path", 'p'),
    Spec::flag("enable-fallback", 'f'),
    Spec::flag("show-default", 'd'),
    Spec::flag("show-non-default", 'n'),
    Spec::value("entry", 'e'),
];
/// Where entries are on a partition that is `/boot`, and on one that is `/`.
const FOLDERS: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];

/// Which entries are shown.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Shown {
    All,
    Default,
    NotDefault,
    One(String),
}

/// `blscfg`.
pub(super) fn blscfg(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let given = match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let mut path = given.value("path").map(str::to_owned);
    let mut shown = match (given.value("entry"), given.has("show-default")) {
        (Some(id), _) => Shown::One(id.to_owned()),
        (None, true) if !given.has("show-non-default") => Shown::Default,
        (None, false) if given.has("show-non-default") => Shown::NotDefault,
        _ => Shown::All,
    };
    match given.words.first().map(|word| &**word) {
        None => {}
        Some("default") => shown = Shown::Default,
        Some("non-default") => shown = Shown::NotDefault,
        Some(word) if word.starts_with('(') => path = Some(word.to_owned()),
        Some(id) => shown = Shown::One(id.to_owned()),
    }

    let Some((device, entries)) = entries(run, path)? else { return Ok(Status::FILE_NOT_FOUND) };
    let default = run.variable("default").to_owned();
    for (index, entry) in entries.into_iter().enumerate() {
        let is_default = !default.is_empty()
            && (entry.id == without_suffix(&default)
                || entry.title == default
                || default.parse() == Ok(index));
        let is_shown = match &shown {
            Shown::All => true,
            Shown::Default => is_default,
            Shown::NotDefault => !is_default,
            Shown::One(id) => entry.id == without_suffix(id),
        };
        if is_shown && run.environment.menu().len() < MAX_ENTRIES {
            add(run, &device, entry)?;
        }
    }
    Ok(Status::SUCCESS)
}

fn without_suffix(id: &str) -> &str {
    id.strip_suffix(".conf").unwrap_or(id)
}

/// The entries of the folder, or the file, that is named, else of the usual one; the newest first.
/// Before them their device; `None` if there is none.
fn entries(
    run: &mut Run<'_>,
    path: Option<String>,
) -> Result<Option<(String, Vec<bls::Entry>)>, Stop> {
    // Older ones of Fedora look on the device that `boot` names.
    let known = run.volumes.device(run.variable("boot")).is_some_and(|boot| boot.volume.is_some());
    let device = run.variable(if known { "boot" } else { "root" }).to_owned();
    let own = Some(run.variable("blsdir").to_owned()).filter(|own| own.starts_with('/'));
    let folders: Vec<String> = match path {
        // A device alone has the usual folder.
        Some(path) if path.ends_with(')') => vec![path + FOLDERS[0]],
        Some(path) => vec![path],
        None => own.into_iter().chain(FOLDERS.map(str::to_owned)).collect(),
    };
    for folder in &folders {
        run.spend(FILE_COST * MAX_ENTRIES as u64)?;
        let name =
            if folder.starts_with('/') { format!("({device}){folder}") } else { folder.clone() };
        let Some(place) = run.place(&name) else {
            run.warn(folder, "is a folder of boot entries that is not there");
            return Ok(None);
        };
        let found = match folder.rsplit_once('/') {
            Some((_, name)) if name.ends_with(".conf") => one(run, &place, name),
            _ => bls::entries(run.volumes, &place),
        };
        if !found.is_empty() {
            let device = run.volumes.name(place.volume).to_owned();
            return Ok(Some((device, bls::by_file_name(found))));
        }
    }
    run.warn("blscfg", &format!("finds no boot entries in {} of {device}", folders.join(", ")));
    Ok(Some((device, Vec::new())))
}

fn one(run: &Run<'_>, place: &Place, name: &str) -> Vec<bls::Entry> {
    bls::entry(run.volumes, place, name).into_iter().collect()
}

/// Adds a menu entry, whose commands are those that an entry stands for.
fn add(run: &mut Run<'_>, device: &str, entry: bls::Entry) -> Result<(), Stop> {
    let options = match entry.options.join(" ") {
        none if none.is_empty() => run.variable("default_kernelopts").to_owned(),
        options => options,
    };
    let mut body = format!(
        "linux ({device}){} {}\n",
        slash(&run.substitute(&entry.linux)),
        run.substitute(&options)
    );
    let early = run.variable("early_initrd").to_owned();
    let folder = entry.initrds.first().unwrap_or(&entry.linux);
    let folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let mut initrds: Vec<String> =
        early.split_whitespace().map(|name| format!("{}/{name}", slash(&folder))).collect();
    initrds.extend(entry.initrds.iter().flat_map(|initrd| {
        // A variable may have no value.
        let initrd = run.substitute(initrd);
        let words = initrd.split_whitespace().map(str::to_owned);
        words.collect::<Vec<_>>()
    }));
    if !initrds.is_empty() {
        body.push_str("initrd");
        for initrd in initrds {
            // Writing to a string does not fail.
            let _ = write!(body, " ({device}){}", slash(&initrd));
        }
    }
    run.spend(body.len() as u64)?;
    let arguments = [vec![entry.title.clone()], entry.arguments].concat();
    run.environment.menu_mut().push(MenuEntry {
        title: entry.title,
        submenu: false,
        body: body.into(),
        file: format!("{}.conf", entry.id),
        line: 1,
        id: entry.id,
        arguments,
        tells_image: false,
    });
    Ok(())
}

fn slash(path: &str) -> String {
    if path.starts_with('/') || path.is_empty() { path.to_owned() } else { format!("/{path}") }
}

impl Run<'_> {
    /// A text with the values of the variables in it, but of those with a backslash before them.
    fn substitute(&self, text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if let Some(before) = before.strip_suffix('\\') {
                result.push_str(before);
                result.push_str("\\$");
                rest = after;
                continue;
            }
            result.push_str(before);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, tail) = braced.unwrap_or_else(|| {
                after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
            });
            if name.is_empty() {
                result.push_str("\\$");
            } else {
                result.push_str(self.variable(name));
            }
            rest = tail;
        }
        result + rest
    }
}
