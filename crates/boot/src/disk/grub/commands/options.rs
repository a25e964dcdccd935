//! Options of commands, as GRUB parts them from the other words.

use super::super::status::Status;

/// What follows an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    None,
    Needed,
    /// Unless the next word begins with a dash.
    Optional,
}

/// An option that a command has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) long: &'static str,
    /// A NUL if there is none.
    pub(super) short: char,
    pub(super) value: Value,
}

impl Spec {
    pub(super) const fn flag(long: &'static str, short: char) -> Self {
        Self { long, short, value: Value::None }
    }

    pub(super) const fn value(long: &'static str, short: char) -> Self {
        Self { long, short, value: Value::Needed }
    }
}

/// How a command takes words with a dash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dashes {
    /// Unknown options are errors.
    Strict,
    /// Unknown options are words.
    Words,
    /// As [`Self::Words`], and none is looked for after the first word.
    AtStart,
}

/// What was given.
pub(super) struct Given {
    /// The options in their order, with their values.
    options: Vec<(&'static str, Option<String>)>,
    pub(super) words: Vec<String>,
}

impl Given {
    pub(super) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The value that was given last; `None` as well where an option came without one.
    pub(super) fn value(&self, long: &str) -> Option<&str> {
        let (_, value) = self.options.iter().rfind(|(name, _)| *name == long)?;
        value.as_deref()
    }

    /// All values of an option, in their order.
    pub(super) fn values(&self, long: &str) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(name, _)| *name == long).filter_map(|(_, v)| v.as_deref())
    }
}

/// Why a command is not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotRun(pub(super) Status);

/// Parts options from words.
///
/// # Errors
///
/// [`NotRun`] with [`Status::BAD_ARGUMENT`] for options that the command does not have or that lack
/// a value, and with success where only help was asked for.
pub(super) fn parse(specs: &[Spec], dashes: Dashes, arguments: &[String]) -> Result<Given, NotRun> {
    let mut given = Given { options: Vec::new(), words: Vec::new() };
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let only_words = dashes == Dashes::AtStart && !given.words.is_empty();
        let (spec, value) = if only_words || argument.len() < 2 || !argument.starts_with('-') {
            given.words.push(argument.clone());
            continue;
        } else if argument == "--" {
            given.words.extend(rest.by_ref().cloned());
            break;
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, mut value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let Some(spec) = specs.iter().find(|spec| spec.long == name) else {
                if matches!(name, "help" | "usage") {
                    return Err(NotRun(Status::SUCCESS));
                }
                if dashes != Dashes::Strict {
                    given.words.push(argument.clone());
                    continue;
                }
                return Err(NotRun(Status::BAD_ARGUMENT));
            };
            if value.is_none() && spec.value != Value::None {
                value = rest.next_if(|next| !next.starts_with('-')).cloned();
            }
            (spec, value)
        } else {
            let Some(spec) = letters(specs, dashes, &argument[1..], &mut given)? else {
                given.words.push(argument.clone());
                continue;
            };
            let takes = |next: &&String| {
                spec.value == Value::Needed
                    || spec.value == Value::Optional && (next.len() < 2 || !next.starts_with('-'))
            };
            (spec, rest.next_if(takes).cloned())
        };
        if spec.value == Value::Needed && value.is_none() {
            return Err(NotRun(Status::BAD_ARGUMENT));
        }
        given.options.push((spec.long, value));
    }
    Ok(given)
}

/// Several options of a letter each; the last one, which may have a value, is returned. `None` if
/// they are a word.
fn letters<'a>(
    specs: &'a [Spec],
    dashes: Dashes,
    letters: &str,
    given: &mut Given,
) -> Result<Option<&'a Spec>, NotRun> {
    let find = |letter: char| specs.iter().find(|spec| spec.short == letter);
    let known = |letter: char| find(letter).is_some() || matches!(letter, 'h' | 'u');
    if dashes != Dashes::Strict && !letters.chars().all(known) {
        return Ok(None);
    }
    let mut rest = letters.chars().peekable();
    while let Some(letter) = rest.next() {
        let Some(spec) = find(letter) else {
            // Help, or usage.
            let status = if known(letter) { Status::SUCCESS } else { Status::BAD_ARGUMENT };
            return Err(NotRun(status));
        };
        if rest.peek().is_none() {
            return Ok(Some(spec));
        }
        if spec.value == Value::Needed {
            return Err(NotRun(Status::BAD_ARGUMENT));
        }
        given.options.push((spec.long, None));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [Spec; 3] = [
        Spec::flag("file", 'f'),
        Spec { long: "set", short: 's', value: Value::Optional },
        Spec::value("hint", 'h'),
    ];

    fn given(line: &str, dashes: Dashes) -> Result<(Vec<String>, Vec<String>), NotRun> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let given = parse(&SPECS, dashes, &words)?;
        let option = |(name, value): &(&str, Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        };
        Ok((given.options.iter().map(option).collect(), given.words))
    }

    #[test]
    fn options_are_parted_from_words() {
        for (line, options, words) in [
            ("-f x", "file", "x"),
            ("--set=r --file x", "set=r file", "x"),
            ("--set r x", "set=r", "x"),
            ("--set -f x", "set file", "x"),
            ("-fs r x", "file set=r", "x"),
            ("-sf x", "set file", "x"),
            ("--hint a --hint=b c", "hint=a hint=b", "c"),
            ("a -- -f", "", "a -f"),
            ("a - b", "", "a - b"),
        ] {
            let (options_found, words_found) = given(line, Dashes::Strict).unwrap();
            assert_eq!((&*options_found.join(" "), &*words_found.join(" ")), (options, words));
        }
    }

    #[test]
    fn unknown_options_are_errors_or_words() {
        let bad = Err(NotRun(Status::BAD_ARGUMENT));
        for line in ["--bogus", "-x", "-fx", "--hint", "-hf x"] {
            assert_eq!(given(line, Dashes::Strict), bad, "{line}");
        }
        assert_eq!(given("--help", Dashes::Strict), Err(NotRun(Status::SUCCESS)));
        assert_eq!(given("-fx --bogus", Dashes::Words).unwrap().1, ["-fx", "--bogus"]);
        assert_eq!(given("-f a -f", Dashes::AtStart).unwrap().1, ["a", "-f"]);
    }
}
