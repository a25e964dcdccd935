//! `menuentry` and `submenu`.

use std::rc::Rc;

use super::super::menu::MenuEntry;
use super::super::parse::Block;
use super::super::run::{Run, Stop};
use super::super::status::Status;
use super::options::{Dashes, NotRun, Spec, Value, parse};

/// Entries of one menu.
pub(super) const MAX_ENTRIES: usize = 1024;

const OPTIONS: [Spec; 6] = [
    Spec::value("class", '\0'),
    Spec { long: "users", short: '\0', value: Value::Optional },
    Spec::value("hotkey", '\0'),
    Spec::value("source", '\0'),
    Spec::value("id", '\0'),
    Spec::flag("unrestricted", '\0'),
];

/// Adds an entry to the menu.
pub(super) fn entry(
    run: &mut Run<'_>,
    submenu: bool,
    arguments: &[String],
    block: Option<&Block>,
) -> Result<Status, Stop> {
    let given = match parse(&OPTIONS, Dashes::Strict, arguments) {
        Ok(given) => given,
        Err(NotRun(status)) => return Ok(status),
    };
    if given.words.is_empty() && block.is_none() {
        return Ok(Status::BAD_ARGUMENT);
    }
    let (body, line): (Rc<str>, u32) = match (block, given.value("source")) {
        (Some(block), None) => (block.text.clone(), block.line),
        (None, Some(source)) => (source.into(), run.line),
        _ => return Ok(Status::BAD_ARGUMENT),
    };
    let Some(title) = given.words.first().cloned() else { return Ok(Status::MENU) };
    if run.environment.menu().len() >= MAX_ENTRIES {
        run.warn(&title, "is an entry too many, and is left out");
        return Ok(Status::MENU);
    }
    let id = given.value("id").unwrap_or(&title).to_owned();
    run.spend(given.words.iter().map(|word| word.len() as u64).sum::<u64>() + body.len() as u64)?;
    let (file, arguments) = (run.file.clone(), given.words);
    let entry = MenuEntry { title, id, submenu, body, file, line, arguments, tells_image: true };
    run.environment.menu_mut().push(entry);
    Ok(Status::SUCCESS)
}
