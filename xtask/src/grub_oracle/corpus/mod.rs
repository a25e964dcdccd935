//! The scripts: families of one subject each, then random programs.

mod commands;
mod conditions;
mod language;
mod menus;

use super::random;
use super::table::Case;

/// Commands that one script tries one after the other.
const LINES: usize = 12;

/// Every script.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(language::cases());
    cases.extend(commands::cases());
    cases.extend(conditions::cases());
    cases.extend(menus::cases());
    cases.extend(random::cases());
    cases
}

fn case(name: impl Into<String>, script: impl Into<String>) -> Case {
    let mut script = script.into();
    if !script.ends_with('\n') {
        script.push('\n');
    }
    Case { name: name.into(), script, outcome: Vec::new() }
}

/// Scripts of a few commands each, with something before each command and after it.
fn packed(name: &str, commands: &[String], before: &str, after: &str) -> Vec<Case> {
    let pack = |(number, commands): (usize, &[String])| {
        let lines = commands.iter().map(|command| format!("{before}{command}\n{after}\n"));
        case(format!("{name}-{}", number + 1), lines.collect::<String>())
    };
    commands.chunks(LINES).enumerate().map(pack).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_corpus_is_always_the_same_and_its_names_are_unique() {
        let cases = super::cases();

        let names: BTreeSet<&str> = cases.iter().map(|case| &*case.name).collect();

        assert_eq!(cases, super::cases());
        assert_eq!(names.len(), cases.len());
        assert!(cases.len() >= 200, "{}", cases.len());
    }
}
