//! `search`: the device that holds a file, or has a label or a UUID.

use super::super::run::{FILE_COST, Run, Stop};
use super::super::status::Status;
use super::options::{Dashes, NotRun, Spec, Value, parse};
use crate::disk::filesystem::Kind;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Wanted {
    File,
    Label,
    Uuid,
}

const OPTIONS: [Spec; 13] = [
    Spec::flag("file", 'f'),
    Spec::flag("label", 'l'),
    Spec::flag("fs-uuid", 'u'),
    Spec { long: "set", short: 's', value: Value::Optional },
    Spec::flag("no-floppy", 'n'),
    Spec::flag("efidisk-only", '\0'),
    // Fedora's, for disks on the same bus as the root device: there is only one disk here.
    Spec::flag("root-dev-only", 'r'),
    Spec::value("hint", 'h'),
    Spec::value("hint-ieee1275", '\0'),
    Spec::value("hint-bios", '\0'),
    Spec::value("hint-baremetal", '\0'),
    Spec::value("hint-efi", '\0'),
    Spec::value("hint-arc", '\0'),
];
/// Hints that a BIOS machine listens to.
const HINTS: [&str; 3] = ["hint", "hint-bios", "hint-baremetal"];

/// `search`.
pub(super) fn search(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let given = match parse(&OPTIONS, Dashes::Words, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let hints: Vec<&str> = HINTS.iter().flat_map(|hint| given.values(hint)).collect();
    let set = given.value("set");
    // Hints for platforms that GRUB did not know yet are words.
    let (name, variable) = match (given.words.iter().find(|word| !word.starts_with("--hint-")), set)
    {
        (Some(name), set) => (&**name, given.has("set").then_some(set.unwrap_or("root"))),
        (None, Some(name)) => (name, Some("root")),
        (None, None) => return Ok(Status::BAD_ARGUMENT),
    };
    let wanted = if given.has("label") {
        Wanted::Label
    } else if given.has("fs-uuid") {
        Wanted::Uuid
    } else if given.has("file") {
        Wanted::File
    } else {
        return Ok(Status::INVALID_COMMAND);
    };
    find(run, wanted, name, variable, &hints)
}

/// `search.file` and its like: what is wanted, the variable, hints.
pub(super) fn search_for(
    run: &mut Run<'_>,
    wanted: Wanted,
    arguments: &[String],
) -> Result<Status, Stop> {
    let Some((name, rest)) = arguments.split_first() else { return Ok(Status::BAD_ARGUMENT) };
    let hints: Vec<&str> = rest.iter().skip(1).map(|hint| &**hint).collect();
    find(run, wanted, name, rest.first().map(|variable| &**variable), &hints)
}

/// Looks for the first device that fits and puts its name into a variable, if one is named.
fn find(
    run: &mut Run<'_>,
    wanted: Wanted,
    name: &str,
    variable: Option<&str>,
    hints: &[&str],
) -> Result<Status, Stop> {
    let same = |other: &str| match wanted {
        Wanted::Uuid => other.eq_ignore_ascii_case(name),
        Wanted::File | Wanted::Label => other == name,
    };
    // What was found before is looked at first, whatever the hints are.
    let known = run.found.iter().rposition(|(kind, key, _)| *kind == wanted && same(key));
    let mut devices: Vec<String> =
        known.map(|index| run.found[index].2.clone()).into_iter().collect();
    for hint in hints {
        let (device, with_partitions) = match hint.strip_suffix(',') {
            Some(device) => (device, true),
            None => (*hint, false),
        };
        devices.push(device.to_owned());
        if with_partitions && run.volumes.device(device).is_some() {
            devices.extend(run.volumes.partition_names(device));
        }
    }
    devices.extend(run.volumes.device_names());

    let mut found = false;
    for device in devices {
        run.spend(FILE_COST)?;
        if !fits(run, wanted, name, &device) {
            continue;
        }
        if !found && known.is_none() {
            run.found.push((wanted, name.to_owned(), device.clone()));
        }
        found = true;
        match variable {
            Some(variable) => {
                run.environment.set(variable, &device);
                break;
            }
            None => run.transcript.say(&format!(" {device}")),
        }
    }
    Ok(if found { Status::SUCCESS } else { Status::FILE_NOT_FOUND })
}

fn fits(run: &Run<'_>, wanted: Wanted, name: &str, device: &str) -> bool {
    if wanted == Wanted::File {
        let place = run.place(&format!("({device}){name}"));
        return place.is_some_and(|place| matches!(run.volumes.kind(&place), Ok(Kind::File(_))));
    }
    let volume = run.volumes.device(device).and_then(|device| device.volume);
    let Some(system) = volume.and_then(|volume| run.volumes.system(volume).ok()) else {
        return false;
    };
    match wanted {
        Wanted::Uuid => system.uuid().eq_ignore_ascii_case(name),
        _ => system.label() == name,
    }
}
