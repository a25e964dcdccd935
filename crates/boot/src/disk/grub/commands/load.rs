//! `linux`, `initrd` and what loads other systems.

use super::super::run::{FILE_COST, Run, Stop};
use super::super::status::Status;
use crate::disk::filesystem::Kind;
use crate::disk::volumes::{InitrdPart, Place};

/// Begins a file that goes into an archive under a name of its own.
const NEWC: &str = "newc:";

/// The place of a file, and its bytes.
fn open(run: &mut Run<'_>, file: &str) -> Result<Result<(Place, u64), Status>, Stop> {
    run.spend(FILE_COST)?;
    let device = match file.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or("", |(device, _)| device),
        None => run.variable("root"),
    };
    if run.volumes.device(device).is_none() {
        return Ok(Err(missing_device(device)));
    }
    let Some(place) = run.place(file) else { return Ok(Err(Status::BAD_FILENAME)) };
    Ok(match run.volumes.kind(&place) {
        Ok(Kind::File(size)) => Ok((place, size)),
        Ok(Kind::Directory) => Err(Status::BAD_FILE_TYPE),
        Err(_) => Err(Status::FILE_NOT_FOUND),
    })
}

/// What GRUB says of a device that is not there: a partition, a disk of the BIOS, or what it takes
/// for a place in the network.
pub(super) fn missing_device(name: &str) -> Status {
    let disk = name.split(',').next().unwrap_or_default().strip_prefix("hd");
    match disk.map(str::parse::<u8>) {
        Some(Ok(0)) => Status::UNKNOWN_DEVICE,
        Some(Ok(_)) => Status::BAD_DEVICE,
        _ => Status::BAD_ADDRESS,
    }
}

/// The place of a file that is there.
pub(super) fn existing(run: &mut Run<'_>, file: &str) -> Result<Option<Place>, Stop> {
    Ok(open(run, file)?.ok().map(|(place, _)| place))
}

/// What is named where [`open`] finds no file.
fn lacking(what: &str, status: Status) -> String {
    let why = if status == Status::BAD_FILE_TYPE { "a directory" } else { "not there" };
    format!("{what} that is {why}")
}

/// What was loaded before stays loaded, as in GRUB.
fn fail(run: &mut Run<'_>, word: &str, what: &str, status: Status) -> Status {
    run.warn(word, &format!("is {what}"));
    run.loaded.failure = Some(format!("names {what}, {word} (line {} of {})", run.line, run.file));
    status
}

/// `linux`.
pub(super) fn linux(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let Some((file, rest)) = arguments.split_first() else {
        return Ok(fail(run, "linux", "no kernel", Status::BAD_ARGUMENT));
    };
    let place = match open(run, file)? {
        Ok((_, 0)) => return Ok(fail(run, file, "a kernel that is empty", Status::BAD_OS)),
        Ok((place, _)) => place,
        Err(status) => return Ok(fail(run, file, &lacking("a kernel", status), status)),
    };
    let mut words: Vec<String> = rest.iter().map(|word| quote(word)).collect();
    if run.tells_image {
        words.insert(0, format!("BOOT_IMAGE={}", quote(file)));
    }
    run.loaded.initrds.clear();
    run.loaded.other = None;
    run.loaded.failure = None;
    run.loaded.kernel = Some((place, words.join(" ")));
    Ok(Status::SUCCESS)
}

/// A word as GRUB writes it into the command line.
fn quote(word: &str) -> String {
    let mut quoted = String::new();
    for next in word.chars() {
        if matches!(next, '\\' | '\'' | '"') {
            quoted.push('\\');
        }
        quoted.push(next);
    }
    if word.contains(' ') { format!("\"{quoted}\"") } else { quoted }
}

/// `initrd`: files one after the other, and `newc:NAME:FILE`.
pub(super) fn initrd(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    if arguments.is_empty() || run.loaded.kernel.is_none() {
        return Ok(Status::BAD_ARGUMENT);
    }
    let mut parts = Vec::new();
    for argument in arguments {
        let named = argument
            .strip_prefix(NEWC)
            .and_then(|rest| rest.trim_start_matches('/').split_once(':'));
        let (name, file) = match named {
            Some((name, file)) => (Some(name.to_owned()), file),
            None => (None, &**argument),
        };
        match open(run, file)? {
            Ok((place, _)) => parts.push(InitrdPart { name, place }),
            Err(status) => return Ok(fail(run, file, &lacking("an initrd", status), status)),
        }
    }
    run.loaded.initrds = parts;
    Ok(Status::SUCCESS)
}

/// What loads another system than Linux.
pub(super) fn other(run: &mut Run<'_>, name: &str) -> Status {
    let line = run.line;
    run.loaded.kernel = None;
    run.loaded.initrds.clear();
    run.loaded.other = Some(format!("uses {name}, and only Linux is booted here (line {line})"));
    Status::SUCCESS
}
