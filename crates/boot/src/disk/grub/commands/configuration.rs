//! Other configurations.

use super::super::GrubError;
use super::super::menu;
use super::super::run::{Run, Stop};
use super::super::status::Status;
use super::load::existing;

/// `source`: the commands of another file, as if they were in this one.
pub(super) fn source(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let [file] = arguments else { return Ok(Status::BAD_ARGUMENT) };
    match existing(run, file)? {
        Some(place) => {
            run.config_file(&place)?;
        }
        None => run.warn(file, "is a configuration that is not there"),
    }
    Ok(Status::SUCCESS)
}

/// `configfile`: another file with exported variables and a menu of its own.
pub(super) fn configfile(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let [file] = arguments else { return Ok(Status::BAD_ARGUMENT) };
    let Some(place) = existing(run, file)? else {
        run.warn(file, "is a configuration that is not there");
        return Ok(Status::SUCCESS);
    };
    run.spend(run.environment.cost())?;
    run.environment.open();
    run.config_file(&place)?;
    if !run.environment.menu().is_empty() {
        return Err(menu::show(run));
    }
    run.environment.close();
    Ok(Status::SUCCESS)
}

/// `normal`: another file or GRUB's own, and the end of this one.
pub(super) fn normal(run: &mut Run<'_>, arguments: &[String]) -> Result<Status, Stop> {
    let own = format!("{}/grub.cfg", run.variable("prefix"));
    let file = arguments.first().unwrap_or(&own);
    match existing(run, file)? {
        Some(place) => {
            run.config_file(&place)?;
        }
        None => run.warn(file, "is a configuration that is not there"),
    }
    if !run.environment.menu().is_empty() {
        return Err(menu::show(run));
    }
    // GRUB asks for commands now.
    Err(Stop::Error(GrubError::NoEntry(run.file.clone())))
}
