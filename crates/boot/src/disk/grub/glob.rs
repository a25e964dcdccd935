//! Patterns of file and device names.

use super::super::stars;
use super::run::{FILE_COST, Run, Stop};

/// A character of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    pub(super) character: char,
    /// It was quoted: a star stands for itself.
    literal: bool,
}

impl Letter {
    pub(super) const fn literal(character: char) -> Self {
        Self { character, literal: true }
    }

    pub(super) const fn plain(character: char) -> Self {
        Self { character, literal: false }
    }

    const fn is_wild(self) -> bool {
        !self.literal && matches!(self.character, '*' | '?')
    }
}

impl stars::Part for Letter {
    fn is_star(&self) -> bool {
        self.is_wild() && self.character == '*'
    }

    fn takes(&self, next: char) -> bool {
        self.is_wild() || self.character == next
    }
}

/// The files or devices that an argument means, if it has a pattern and some fit.
pub(super) fn expand(run: &mut Run<'_>, argument: &[Letter]) -> Result<Option<Vec<String>>, Stop> {
    let begins = argument.first().is_some_and(|first| matches!(first.character, '/' | '(' | '*'));
    if !begins || !argument.iter().any(|letter| letter.is_wild()) {
        return Ok(None);
    }
    let mut paths: Option<Vec<String>> = None;
    let mut rest = argument;
    while !rest.is_empty() {
        let (plain, pattern, tail) = split(rest);
        let plain_text = text(plain);
        paths = Some(if pattern.is_empty() {
            extend(run, paths, &plain_text)?
        } else {
            match paths {
                None if plain.is_empty() => devices(run, pattern),
                None => files(run, "", &plain_text, pattern)?,
                Some(paths) => {
                    let mut found = Vec::new();
                    for path in paths {
                        found.extend(files(run, &path, &plain_text, pattern)?);
                    }
                    found
                }
            }
        });
        if paths.as_ref().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        rest = tail;
    }
    Ok(paths)
}

fn text(letters: &[Letter]) -> String {
    letters.iter().map(|letter| letter.character).collect()
}

/// Parts what comes before the first name with a pattern, that name, and the rest.
fn split(letters: &[Letter]) -> (&[Letter], &[Letter], &[Letter]) {
    let is_slash = |letter: &Letter| letter.character == '/';
    let Some(wild) = letters.iter().position(|letter| letter.is_wild()) else {
        return (letters, &[], &[]);
    };
    let (before, after) = letters.split_at(wild);
    let start = before.iter().rposition(is_slash).map_or(0, |slash| slash + 1);
    let end = after.iter().position(is_slash).map_or(letters.len(), |slash| wild + slash);
    (&letters[..start], &letters[start..end], &letters[end..])
}

/// The paths with a text that has no pattern after them, as far as that is there.
fn extend(run: &mut Run<'_>, paths: Option<Vec<String>>, text: &str) -> Result<Vec<String>, Stop> {
    let mut found = Vec::new();
    for path in paths.unwrap_or_default() {
        run.spend(FILE_COST + path.len() as u64)?;
        let path = path + text;
        let there = match path.rsplit_once('/') {
            Some((folder, name)) => holds(run, folder, name),
            None => true,
        };
        if there {
            found.push(path);
        }
    }
    Ok(found)
}

/// Whether a folder holds a name; any, if the name is empty.
fn holds(run: &Run<'_>, folder: &str, name: &str) -> bool {
    let folder = if folder.is_empty() || folder.ends_with(')') {
        format!("{folder}/")
    } else {
        folder.to_owned()
    };
    let Some(place) = run.place(&folder) else { return false };
    let Ok(names) = run.volumes.list(&place) else { return false };
    name.is_empty()
        || matches!(name, "." | "..")
        || names.iter().any(|other| run.volumes.same_name(place.volume, other, name))
}

/// Devices in parentheses; those with partitions only where the pattern begins with one.
fn devices(run: &Run<'_>, pattern: &[Letter]) -> Vec<String> {
    let partitions = pattern.first().is_some_and(|first| first.character == '(');
    let names = run.volumes.device_names().into_iter();
    names
        .filter(|name| partitions || !name.contains(','))
        .map(|name| format!("({name})"))
        .filter(|name| matches(pattern, name))
        .collect()
}

/// Files of the folder `prefix` and `folder` that fit.
fn files(
    run: &mut Run<'_>,
    prefix: &str,
    folder: &str,
    pattern: &[Letter],
) -> Result<Vec<String>, Stop> {
    let folder = format!("{prefix}{folder}");
    run.spend(FILE_COST + folder.len() as u64)?;
    let Some(place) = run.place(&folder) else { return Ok(Vec::new()) };
    let names = run.volumes.list(&place).unwrap_or_default();
    let mut found = Vec::new();
    for name in names {
        run.spend(name.len() as u64)?;
        if matches(pattern, &name) {
            run.spend(folder.len() as u64)?;
            found.push(format!("{folder}{name}"));
        }
    }
    Ok(found)
}

/// Whether a pattern is all of a text.
fn matches(pattern: &[Letter], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    stars::matches(pattern, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> Vec<Letter> {
        text.chars().map(Letter::plain).collect()
    }

    #[test]
    fn a_pattern_is_a_name_of_its_own() {
        for (path, before, pattern, rest) in [
            ("/boot/k-*", "/boot/", "k-*", ""),
            ("/b*t/k", "/", "b*t", "/k"),
            ("(*)/k", "", "(*)", "/k"),
            ("/boot/k", "/boot/k", "", ""),
        ] {
            let letters = letters(path);
            let (a, b, c) = split(&letters);
            assert_eq!((&*text(a), &*text(b), &*text(c)), (before, pattern, rest), "{path}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, holds) in
            [("a*c", "abbc", true), ("a*c", "abcd", false), ("a?c", "abc", true), ("?", "", false)]
        {
            assert_eq!(matches(&letters(pattern), name), holds, "{pattern} {name}");
        }
        assert!(!matches(&[Letter::literal('*')], "a"));
    }

    #[test]
    fn long_patterns_take_no_long_time() {
        assert!(!matches(&letters(&"*a".repeat(500)), &"a".repeat(499)));
    }
}
