//! The menu of a GRUB configuration, and the entries that are tried of it.

use std::rc::Rc;

use super::super::volumes::{Choice, Place, Volumes};
use super::GrubError;
use super::lex::Lines;
use super::number::{self, is_space};
use super::run::{Run, Stop};
use super::status::Status;
use super::transcript::Transcript;

/// Menus within menus.
const MAX_SUBMENUS: u32 = 8;

/// An entry of the menu.
#[derive(Clone, Debug)]
pub(super) struct MenuEntry {
    pub(super) title: String,
    /// The title, where none was given.
    pub(super) id: String,
    /// Its commands make a menu.
    pub(super) submenu: bool,
    pub(super) body: Rc<str>,
    /// Where the body begins.
    pub(super) file: String,
    pub(super) line: u32,
    /// `$1` and so on; the first is the title.
    pub(super) arguments: Vec<String>,
    /// Whether the kernel is told its file.
    pub(super) tells_image: bool,
}

/// What a configuration comes to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<Choice, GrubError>,
    /// No command and no entry asked for the boot.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "where GRUB waits, what is loaded is booted")
    )]
    pub(super) unasked: bool,
    pub(super) transcript: Transcript,
}

/// Runs the configuration at `place` and boots as it says.
///
/// # Errors
///
/// [`GrubError`] when that leads to no Linux kernel.
pub(in super::super) fn boot(volumes: &Volumes, place: &Place) -> Result<Choice, GrubError> {
    let outcome = outcome(volumes, place);
    for line in outcome.transcript.said.lines() {
        tracing::debug!(line, "GRUB's configuration says");
    }
    outcome.result
}

/// As [`boot`], with all that the configuration says.
pub(super) fn outcome(volumes: &Volumes, place: &Place) -> Outcome {
    let mut run = Run::new(volumes, place);
    let file = run.file.clone();
    let mut ran = run.config_file(place).map(drop);
    if ran.is_ok() && !run.environment.menu().is_empty() {
        ran = Err(show(&mut run));
    }
    let unasked = ran.is_ok();
    let result = match ran {
        Err(Stop::Error(error)) => Err(error),
        // Without a menu and a command to boot what is loaded, GRUB asks for a command. Nobody is
        // there to give one.
        Ok(()) | Err(Stop::Boot) => take(&mut run, &file),
    };
    Outcome { result, unasked, transcript: run.transcript }
}

/// What has been loaded.
fn take(run: &mut Run<'_>, file: &str) -> Result<Choice, GrubError> {
    let failure = run.loaded.other.take().or_else(|| run.loaded.failure.take());
    let loaded = run.loaded.take();
    let file = file.to_owned();
    match (loaded, run.title.take(), failure) {
        (Some(choice), title, _) => Ok(Choice { title: title.unwrap_or_default(), ..choice }),
        (None, Some(title), what) => {
            let what = what.unwrap_or_else(|| "loads no kernel".to_owned());
            Err(GrubError::NotLinux { file, title, what })
        }
        (None, None, Some(what)) => Err(GrubError::Commands { file, what }),
        (None, None, None) => Err(GrubError::NoEntry(file)),
    }
}

/// Boots the default entry of the menu that has been made, or one that it falls back to. Where none
/// boots, GRUB shows the menu again and waits.
pub(super) fn show(run: &mut Run<'_>) -> Stop {
    match try_default(run) {
        Ok(error) => Stop::Error(error),
        Err(stop) => stop,
    }
}

/// Runs the default entry and those that it falls back to. Returns why the first one did not boot.
fn try_default(run: &mut Run<'_>) -> Result<GrubError, Stop> {
    let menu = run.environment.menu().to_vec();
    run.spend(menu.len() as u64)?;
    let default = run.environment.get("default").and_then(|value| number_of(&menu, value));
    let default = default.filter(|number| *number < menu.len()).unwrap_or(0);
    execute_with_fallback(run, &menu, default)
}

/// Runs an entry, and those that `fallback` names as long as none boots. Returns why the first one
/// did not.
fn execute_with_fallback(
    run: &mut Run<'_>,
    menu: &[MenuEntry],
    default: usize,
) -> Result<GrubError, Stop> {
    let Some(entry) = menu.get(default) else { return Err(run.endless()) };
    let error = execute(run, entry)?;
    while let Some(number) = take_fallback(run) {
        let Some(next) = menu.get(number) else { continue };
        let what = format!("is fallen back to: {error}");
        run.transcript.warn(&next.file, next.line, &next.title, &what);
        execute(run, next)?;
    }
    Ok(error)
}

/// Runs an entry, which boots if something has been loaded, whatever failed besides. Else returns what
/// is wrong.
fn execute(run: &mut Run<'_>, entry: &MenuEntry) -> Result<GrubError, Stop> {
    let default = run.environment.get("default").map(str::to_owned);
    let chosen = run.environment.get("chosen").map(str::to_owned);
    if entry.submenu {
        run.menus += 1;
        if run.menus > MAX_SUBMENUS {
            return Err(run.endless());
        }
        run.spend(run.environment.cost())?;
        run.environment.open();
        run.environment.set("timeout", "0");
    }
    let id = entry.id.replace('>', ">>");
    let path = chosen.as_ref().map_or_else(|| id.clone(), |outer| format!("{outer}>{id}"));
    run.environment.set("chosen", &path);
    run.environment.export("chosen");
    match default.as_deref().and_then(rest_of) {
        Some(rest) => run.environment.set("default", rest),
        None => run.environment.unset("default"),
    }

    let scope = run.scope.replace(entry.arguments.clone());
    let outer = (std::mem::replace(&mut run.file, entry.file.clone()), run.line);
    let title = run.title.replace(entry.title.clone());
    let tells_image = std::mem::replace(&mut run.tells_image, entry.tells_image);
    run.line = entry.line;
    let status = run.text(&mut Lines::of_text(&entry.body, entry.line))?;
    if run.loaded.is_any() {
        return Err(Stop::Boot);
    }
    let mut error = why_not(run, entry, status);
    if entry.submenu && !run.environment.menu().is_empty() {
        error = try_default(run)?;
    }
    (run.file, run.line) = outer;
    (run.scope, run.title, run.tells_image) = (scope, title, tells_image);
    if entry.submenu {
        run.environment.close();
        run.menus -= 1;
    }
    for (name, value) in [("chosen", chosen), ("default", default)] {
        match value {
            Some(value) => run.environment.set(name, &value),
            None => run.environment.unset(name),
        }
    }
    run.environment.unset("timeout");
    Ok(error)
}

/// Why an entry that was run has not booted.
fn why_not(run: &mut Run<'_>, entry: &MenuEntry, status: Status) -> GrubError {
    let what = match (run.loaded.failure.take(), status) {
        (Some(what), _) => what,
        (None, Status::SUCCESS) => "loads no kernel".to_owned(),
        (None, status) => {
            format!("ends with an error ({status}, line {} of {})", run.line, run.file)
        }
    };
    GrubError::NotLinux { file: entry.file.clone(), title: entry.title.clone(), what }
}

/// What of `default` is for the menu in the chosen one: after the first `>` that is not doubled.
fn rest_of(default: &str) -> Option<&str> {
    let mut rest = default;
    loop {
        let (_, after) = rest.split_once('>')?;
        match after.strip_prefix('>') {
            Some(doubled) => rest = doubled,
            None => return Some(after).filter(|after| !after.is_empty()),
        }
    }
}

/// The entry that `default` means: by number, else by title or id.
fn number_of(menu: &[MenuEntry], default: &str) -> Option<usize> {
    match number::parse(default, 0) {
        Ok((number, _)) => Some(number as usize),
        Err(Status::BAD_NUMBER) => {
            menu.iter().position(|entry| is(&entry.title, default) || is(&entry.id, default))
        }
        Err(_) => None,
    }
}

/// Whether `default` up to its first `>` is a title or an id. Their own `>` is written twice.
fn is(name: &str, default: &str) -> bool {
    let mut rest = default.chars().peekable();
    let mut name = name.chars();
    loop {
        let next = rest.next();
        if next == Some('>') && rest.next_if_eq(&'>').is_none() {
            return name.next().is_none();
        }
        match (next, name.next()) {
            (None, None) => return true,
            (next, wanted) if next == wanted => {}
            _ => return false,
        }
    }
}

/// Takes the first number off `fallback`.
fn take_fallback(run: &mut Run<'_>) -> Option<usize> {
    let value = run.environment.get("fallback")?.to_owned();
    match number::parse(&value, 0) {
        Ok((number, rest)) => {
            match rest.trim_start_matches(is_space) {
                "" => run.environment.unset("fallback"),
                rest => run.environment.set("fallback", rest),
            }
            Some(number as usize)
        }
        Err(_) => {
            run.environment.unset("fallback");
            run.warn(&value, "is not the number of an entry to fall back to");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is, rest_of};

    #[test]
    fn a_default_names_a_submenu_and_an_entry() {
        for (default, title, rest) in [
            ("Advanced options>Linux 6.1>x", "Advanced options", Some("Linux 6.1>x")),
            ("a>>b>c", "a>b", Some("c")),
            ("plain", "plain", None),
            ("plain>", "plain", None),
        ] {
            assert!(is(title, default), "{default}");
            assert_eq!(rest_of(default), rest, "{default}");
        }
        assert!(!is("a", "ab") && !is("ab", "a") && !is("a>b", "a>b"));
    }
}
