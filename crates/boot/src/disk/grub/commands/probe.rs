//! `probe`: what a device is and has.

use super::super::run::{FILE_COST, Run, Stop};
use super::super::status::Status;
use super::load::missing_device;
use super::options::{Dashes, NotRun, Spec, parse};
use crate::disk::volumes::Device;

const OPTIONS: [Spec; 7] = [
    Spec::value("set", 's'),
    Spec::flag("driver", 'd'),
    Spec::flag("partmap", 'p'),
    Spec::flag("fs", 'f'),
    Spec::flag("fs-uuid", 'u'),
    Spec::flag("label", 'l'),
    Spec::flag("part-uuid", '\0'),
];

/// `probe`.
pub(super) fn probe(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    run.spend(FILE_COST)?;
    let given = match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let Some(name) = given.words.first() else { return Ok(Status::BAD_ARGUMENT) };
    let bare = name.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(name);
    let Some(device) = run.volumes.device(bare) else { return Ok(missing_device(bare)) };
    let value = if given.has("driver") {
        Ok("biosdisk".to_owned())
    } else if given.has("partmap") {
        Ok(device.table.unwrap_or("none").to_owned())
    } else if given.has("part-uuid") {
        let uuid = device.volume.and_then(|volume| run.volumes.partition_uuid(volume));
        Ok(uuid.unwrap_or("none").to_owned())
    } else {
        of_file_system(run, device, |option| given.has(option))
    };
    Ok(match value {
        Ok(value) => {
            match given.value("set") {
                Some(variable) => run.environment.set(variable, &value),
                None => run.transcript.say(&value),
            }
            Status::SUCCESS
        }
        Err(status) => status,
    })
}

fn of_file_system(
    run: &Run<'_>,
    device: Device,
    has: impl Fn(&str) -> bool,
) -> Result<String, Status> {
    let system = device.volume.and_then(|volume| run.volumes.system(volume).ok());
    let system = system.ok_or(Status::UNKNOWN_FS)?;
    if has("fs") {
        Ok(system.grub_name().to_owned())
    } else if has("fs-uuid") {
        Ok(system.uuid())
    } else if has("label") {
        Ok(system.label())
    } else {
        Err(Status::BAD_ARGUMENT)
    }
}
