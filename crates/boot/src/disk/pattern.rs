//! Shell patterns of whole names: `*`, `?` and `[...]`. Case does not count.

/// One place of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Any,
    One,
    Char(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
}

impl Part {
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
    let pattern = parts(&pattern.to_lowercase());
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last star was and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Part::Any) => {
                star = Some((p, t));
                p += 1;
            }
            Some(part) if part.takes(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|rest| *rest == Part::Any)
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
