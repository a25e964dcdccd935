//! Variables, and those that last from one boot to the next.

use super::super::environment_block;
use super::super::number::signed;
use super::super::run::{FILE_COST, Run, Stop};
use super::super::status::Status;
use super::load::existing;
use super::options::{Dashes, NotRun, Spec, parse};

/// The largest environment block.
const MAX_ENVIRONMENT: u64 = 64 << 10;

/// `set`: one assignment; further words do not count.
pub(super) fn set(run: &mut Run<'_>, arguments: &[String]) -> Status {
    match arguments.first().map(|assignment| assignment.split_once('=')) {
        Some(Some((name, value))) => {
            run.environment.set(name, value);
            Status::SUCCESS
        }
        Some(None) => Status::BAD_ARGUMENT,
        // Lists all variables.
        None => Status::SUCCESS,
    }
}

/// `unset`: one variable.
pub(super) fn unset(run: &mut Run<'_>, arguments: &[String]) -> Status {
    let Some(name) = arguments.first() else { return Status::BAD_ARGUMENT };
    run.environment.unset(name);
    Status::SUCCESS
}

/// `export`: any number of them.
pub(super) fn export(run: &mut Run<'_>, arguments: &[String]) -> Status {
    if arguments.is_empty() {
        return Status::BAD_ARGUMENT;
    }
    for name in arguments {
        run.environment.export(name);
    }
    Status::SUCCESS
}

/// `increment` and `decrement`, of Fedora's GRUB: the number of boots that did not come to their end.
pub(super) fn count(run: &mut Run<'_>, arguments: &[String], by: i32) -> Status {
    let [name] = arguments else { return Status::BAD_ARGUMENT };
    let value = signed(run.variable(name)).wrapping_add(by);
    run.environment.set(name, &value.to_string());
    Status::SUCCESS
}

/// `load_env`: variables of an environment block, all of them or those that are named.
pub(super) fn load_env(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    const OPTIONS: [Spec; 2] = [Spec::value("file", 'f'), Spec::flag("skip-sig", 's')];
    let given = match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    let own = format!("{}/grubenv", run.variable("prefix"));
    let Some(place) = existing(run, given.value("file").unwrap_or(&own))? else {
        return Ok(Status::FILE_NOT_FOUND);
    };
    let Ok(block) = run.volumes.read(&place, MAX_ENVIRONMENT) else {
        return Ok(Status::FILE_READ_ERROR);
    };
    run.spend(block.len() as u64 + FILE_COST)?;
    let Some(variables) = environment_block::variables(&block) else {
        return Ok(Status::BAD_FILE_TYPE);
    };
    for (name, value) in variables {
        if given.words.is_empty() || given.words.contains(&name) {
            run.environment.set(&name, &value);
        }
    }
    Ok(Status::SUCCESS)
}
