//! Shell patterns of whole names: `*`, `?` and `[...]`. Case does not count.

use super::stars;

/// One place of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Any,
    One,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl stars::Part for Part {
    fn is_star(&self) -> bool {
        *self == Self::Any
    }

    fn takes(&self, next: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(wanted) => *wanted == next,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&next)) != *negated
            }
        }
    }
}

/// Whether a pattern is all of a text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    stars::matches(&parts(&pattern.to_lowercase()), &text)
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        parts.push(match next {
            '*' => Part::Any,
            '?' => Part::One,
            '[' => match set(rest) {
                Some((part, tail)) => {
                    rest = tail;
                    part
                }
                None => Part::Char('['),
            },
            '\\' => match rest.chars().next() {
                Some(escaped) => {
                    rest = &rest[escaped.len_utf8()..];
                    Part::Char(escaped)
                }
                None => Part::Char('\\'),
            },
            other => Part::Char(other),
        });
    }
    parts
}

/// What is in brackets, and what follows them; `None` if they do not close.
fn set(text: &str) -> Option<(Part, &str)> {
    let (negated, text) = match text.strip_prefix(['!', '^']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = text.char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let characters: Vec<char> = text[..end].chars().collect();
    let mut ranges = Vec::new();
    let mut rest = &characters[..];
    while let [first, tail @ ..] = rest {
        if let ['-', last, tail @ ..] = tail {
            ranges.push((*first, *last));
            rest = tail;
        } else {
            ranges.push((*first, *first));
            rest = tail;
        }
    }
    Some((Part::Set { negated, ranges }, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, holds) in [
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a?c", "aBC", true),
            ("", "", true),
            ("?", "", false),
            ("[a-c]x", "bX", true),
            ("[!a-c]x", "bx", false),
            ("[]x", "[]x", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
        ] {
            assert_eq!(matches(pattern, text), holds, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn long_patterns_take_no_long_time(stars in 1_usize..200) {
            let pattern = "*a".repeat(stars);
            prop_assert!(!matches(&pattern, &"a".repeat(stars - 1)));
        }

        #[test]
        fn any_pattern_ends(pattern in "[ab*?\\[\\]!^\\\\-]{0,10}", text in "[ab]{0,10}") {
            let _ = matches(&pattern, &text);
        }
    }
}
