//! `test` and `[`: the expressions of GRUB's conditions.

use std::cmp::Ordering;

use super::super::filesystem::Entry;
use super::number::{signed, unsigned};

/// What an expression asks of files.
pub(super) trait Files {
    /// What is there of that name.
    fn entry(&self, path: &str) -> Option<Entry>;
    /// The bytes of the file that a path leads to.
    fn file_size(&self, path: &str) -> Option<u64>;
}

/// Before any file was looked at.
const NOTHING: Entry = Entry { directory: false, modified: None };
/// Parentheses within parentheses.
const MAX_DEPTH: u32 = 100;

/// Whether the expression holds. GRUB takes any words for one.
pub(super) fn test(words: &[String], files: &dyn Files) -> bool {
    let words = match words.split_last() {
        Some((last, rest)) if last == "]" => rest,
        _ => words,
    };
    Expression { rest: words, files, depth: 0 }.parse()
}

struct Expression<'a> {
    rest: &'a [String],
    files: &'a dyn Files,
    depth: u32,
}

/// What terms have come to, between two parentheses.
struct Terms {
    negated: bool,
    all: bool,
    any: bool,
    /// What the last file that was there is, which a comparison with one that is not falls back to.
    last: Entry,
}

impl Terms {
    fn add(&mut self, holds: bool) {
        self.all &= holds != self.negated;
        self.negated = false;
    }
}

impl<'a> Expression<'a> {
    fn parse(&mut self) -> bool {
        let mut terms = Terms { negated: false, all: true, any: false, last: NOTHING };
        while let Some((word, rest)) = self.rest.split_first() {
            // Three words are a comparison, whatever the first one is.
            if let [left, operator, right, rest @ ..] = self.rest
                && let Some(holds) = self.binary(left, operator, right, &mut terms.last)
            {
                self.rest = rest;
                terms.add(holds);
                continue;
            }
            if let [operator, word, rest @ ..] = self.rest
                && let Some(holds) = self.unary(operator, word, &mut terms.last)
            {
                self.rest = rest;
                terms.add(holds);
                continue;
            }
            self.rest = rest;
            match &**word {
                ")" => break,
                "(" => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return false;
                    }
                    let holds = self.parse();
                    self.depth -= 1;
                    terms.add(holds);
                }
                "!" => terms.negated = !terms.negated,
                "-a" => {}
                "-o" => {
                    terms.any |= terms.all;
                    terms.all = true;
                }
                word => terms.add(!word.is_empty()),
            }
        }
        terms.any || terms.all
    }

    fn look(&self, path: &str, last: &mut Entry) -> Option<Entry> {
        let entry = self.files.entry(path);
        *last = entry.unwrap_or(*last);
        entry
    }

    fn unary(&self, operator: &str, word: &str, last: &mut Entry) -> Option<bool> {
        Some(match operator {
            "-d" => self.look(word, last).is_some_and(|entry| entry.directory),
            "-e" => self.look(word, last).is_some(),
            "-f" => self.look(word, last).is_some_and(|entry| !entry.directory),
            "-s" => self.files.file_size(word).is_some_and(|size| size > 0),
            "-n" => !word.is_empty(),
            "-z" => word.is_empty(),
            _ => return None,
        })
    }

    fn binary(&self, left: &str, operator: &str, right: &str, last: &mut Entry) -> Option<bool> {
        let numbers = || signed(left).cmp(&signed(right));
        Some(match operator {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            ">=" => left >= right,
            "-eq" => numbers().is_eq(),
            "-ge" => numbers().is_ge(),
            "-gt" => numbers().is_gt(),
            "-le" => numbers().is_le(),
            "-lt" => numbers().is_lt(),
            "-ne" => numbers().is_ne(),
            "-pgt" => compare_ends(left, right).is_gt(),
            "-plt" => compare_ends(left, right).is_lt(),
            _ => {
                let newer = operator.strip_prefix("-nt");
                let bias = newer.or(operator.strip_prefix("-ot"))?;
                return Some(self.is_newer(newer.is_some(), bias, left, right, last));
            }
        })
    }

    /// `-nt` and `-ot`, with seconds that are added to the first file's age.
    fn is_newer(&self, newer: bool, bias: &str, left: &str, right: &str, last: &mut Entry) -> bool {
        let first = self.look(left, last);
        let first_time = last.modified;
        let second = self.look(right, last);
        let order = match (first_time, last.modified) {
            (Some(first), Some(second)) => {
                Some(first.wrapping_add(signed(bias).into()).cmp(&second))
            }
            _ => None,
        };
        if newer {
            (first.is_some() && second.is_none()) || order.is_some_and(Ordering::is_gt)
        } else {
            (first.is_none() && second.is_some()) || order.is_some_and(Ordering::is_lt)
        }
    }
}

/// Compares the numbers after what two words have in common: `vmlinuz-9` is before `vmlinuz-10`.
fn compare_ends(left: &str, right: &str) -> Ordering {
    let pairs = left.bytes().zip(right.bytes());
    let common = pairs.take_while(|(left, right)| left == right).count();
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let digits = left.as_bytes()[..common].iter().rev().take_while(|byte| is_digit(byte)).count();
    // GRUB does not look at the first character when it goes back.
    let start = if digits == common && digits > 0 { 1 } else { common - digits };
    let number = |text: &str| unsigned(text.get(start..).unwrap_or_default());
    number(left).cmp(&number(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory `/d` and a file `/f` of 3 bytes, modified at 50.
    struct Two;

    impl Files for Two {
        fn entry(&self, path: &str) -> Option<Entry> {
            let modified = Some(50);
            match path {
                "/d" => Some(Entry { directory: true, modified }),
                "/f" => Some(Entry { directory: false, modified }),
                _ => None,
            }
        }

        fn file_size(&self, path: &str) -> Option<u64> {
            (path == "/f").then_some(3)
        }
    }

    #[test]
    fn expressions_hold_as_in_the_manual() {
        for (expression, holds) in [
            ("a = a", true),
            ("a == b", false),
            ("a != b", true),
            ("x2 = xy -o b = b", true),
            ("a = a -a b = c", false),
            ("! a = b", true),
            ("! -s /none", true),
            ("-s /f", true),
            ("-f /d", false),
            ("-d /d -a -e /f", true),
            ("( a = b -o a = a ) -a -n x", true),
            ("10 -gt 9", true),
            ("10 -le 9", false),
            ("word", true),
            ("-z", true),
            ("= = =", true),
            ("vmlinuz-2 -plt vmlinuz-11", true),
            ("v10 -pgt v9", true),
            ("/none -ot /f", true),
            ("/f -nt1 /f", true),
            ("", true),
        ] {
            let words: Vec<String> = expression.split_whitespace().map(str::to_owned).collect();
            assert_eq!(test(&words, &Two), holds, "{expression}");
        }
        assert!(test(&["-z".into(), String::new()], &Two));
        assert!(!test(&[String::new()], &Two));
    }

    #[test]
    fn nesting_has_an_end() {
        assert!(!test(&vec!["(".to_owned(); 10_000], &Two));
    }
}
