//! The menu of a GRUB configuration, and its default entry.

use std::rc::Rc;

use super::super::bls;
use super::super::volumes::{Choice, Place, Volumes};
use super::GrubError;
use super::parse::Block;
use super::run::{Run, Stop};

/// Menus within menus.
const MAX_SUBMENUS: u32 = 8;

/// What an entry does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Runs commands.
    Script(Rc<Block>),
    /// Shows the menu that commands make.
    Submenu(Rc<Block>),
    /// Boots an entry of the Boot Loader Specification, on a volume.
    Entry(bls::Entry, usize),
}

/// An entry of the menu.
#[derive(Clone, Debug)]
pub(super) struct MenuEntry {
    pub(super) title: String,
    pub(super) id: String,
    pub(super) action: Action,
    /// `$1` and so on; the first is the title.
    pub(super) arguments: Vec<String>,
}

/// Runs the configuration at `place` and takes the default entry of its menu.
///
/// # Errors
///
/// [`GrubError`] when that leads to no Linux kernel.
pub(in super::super) fn boot(volumes: &Volumes, place: &Place) -> Result<Choice, GrubError> {
    let file = volumes.describe(place);
    let mut run = Run::new(volumes, place);
    match run.config_file(place) {
        Ok(_) | Err(Stop::Return | Stop::Boot | Stop::Menu) => {}
        Err(Stop::Error(error)) => return Err(error),
    }
    choose(run, &file, 0)
}

/// The default entry of the menu that a run has made.
fn choose(mut run: Run<'_>, file: &str, depth: u32) -> Result<Choice, GrubError> {
    if depth > MAX_SUBMENUS {
        return Err(GrubError::Endless(file.to_owned()));
    }
    let menu = std::mem::take(&mut run.menu);
    if menu.is_empty() {
        // Commands without a menu may boot by themselves.
        let (file, failure) = (file.to_owned(), run.loaded.failure.take());
        return run.loaded.take().ok_or(match failure {
            Some(what) => GrubError::Commands { file, what },
            None => GrubError::NoEntry(file),
        });
    }
    let default = run.variables.remove("default").unwrap_or_default();
    let (entry, rest) = select(&menu, &default);
    run.variables.insert("chosen".into(), entry.title.clone());
    run.loaded.clear();
    run.arguments.clone_from(&entry.arguments);
    let block = match &entry.action {
        Action::Entry(entry, volume) => {
            return Ok(entry.choice(*volume, &|text| run.substitute(text)));
        }
        Action::Script(block) | Action::Submenu(block) => block.clone(),
    };
    if !rest.is_empty() {
        run.variables.insert("default".into(), rest);
    }
    match run.block(&block) {
        Ok(_) | Err(Stop::Return | Stop::Boot | Stop::Menu) => {}
        Err(Stop::Error(error)) => return Err(error),
    }
    if matches!(entry.action, Action::Submenu(_)) || !run.menu.is_empty() {
        return choose(run, file, depth + 1);
    }
    let what = run.loaded.failure.take().unwrap_or_else(|| "loads no kernel".to_owned());
    let title = entry.title.clone();
    match run.loaded.take() {
        Some(choice) => Ok(Choice { title, ..choice }),
        None => Err(GrubError::NotLinux { file: file.to_owned(), title, what }),
    }
}

/// The entry that `default` means, by number, title or id, else the first; and what of `default`
/// is for the menu in it.
fn select<'a>(menu: &'a [MenuEntry], default: &str) -> (&'a MenuEntry, String) {
    let (first, rest) = first_element(default);
    let found = match first.parse::<usize>() {
        Ok(number) => menu.get(number),
        Err(_) => menu
            .iter()
            .find(|entry| entry.title == first || (!entry.id.is_empty() && entry.id == first)),
    };
    match found {
        Some(entry) => (entry, rest),
        None => (&menu[0], String::new()),
    }
}

/// Parts `submenu>entry`. A title's own `>` is written twice.
fn first_element(default: &str) -> (String, String) {
    let mut first = String::new();
    let mut rest = default.chars().peekable();
    while let Some(next) = rest.next() {
        if next == '>' && rest.next_if_eq(&'>').is_none() {
            break;
        }
        first.push(next);
    }
    (first, rest.collect())
}

#[cfg(test)]
mod tests {
    use super::first_element;

    #[test]
    fn a_default_names_a_submenu_and_an_entry() {
        for (default, first, rest) in [
            ("1>2", "1", "2"),
            ("Advanced options>Linux 6.1>x", "Advanced options", "Linux 6.1>x"),
            ("a>>b>c", "a>b", "c"),
            ("plain", "plain", ""),
            ("", "", ""),
        ] {
            assert_eq!(first_element(default), (first.into(), rest.into()), "{default}");
        }
    }
}
