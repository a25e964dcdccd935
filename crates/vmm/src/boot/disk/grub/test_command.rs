//! `test` and `[`: the expressions of GRUB's conditions.

/// What an expression asks of files.
pub(super) trait Files {
    /// Whether a path leads to a directory.
    fn is_directory(&self, path: &str) -> bool;
    /// The bytes of the file that a path leads to.
    fn file_size(&self, path: &str) -> Option<u64>;
}

/// Parentheses within parentheses.
const MAX_DEPTH: u32 = 32;

/// Whether the expression holds; one that is none does not.
pub(super) fn test(words: &[String], files: &dyn Files) -> bool {
    let mut expression = Expression { rest: words, files, depth: 0 };
    let holds = expression.any().unwrap_or(false);
    holds && expression.rest.is_empty()
}

struct Expression<'a> {
    rest: &'a [String],
    files: &'a dyn Files,
    depth: u32,
}

impl<'a> Expression<'a> {
    fn take(&mut self, word: &str) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if first == word => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Terms with `-o` between them.
    fn any(&mut self) -> Option<bool> {
        let mut holds = self.all()?;
        while self.take("-o") {
            holds |= self.all()?;
        }
        Some(holds)
    }

    /// Terms with `-a` between them.
    fn all(&mut self) -> Option<bool> {
        let mut holds = self.term()?;
        while self.take("-a") {
            holds &= self.term()?;
        }
        Some(holds)
    }

    fn term(&mut self) -> Option<bool> {
        // Two words are compared whatever they are.
        if let [left, operator, right, rest @ ..] = self.rest
            && let Some(holds) = self.binary(left, operator, right)
        {
            self.rest = rest;
            return Some(holds);
        }
        if let [operator, word, rest @ ..] = self.rest
            && let Some(holds) = self.unary(operator, word)
        {
            self.rest = rest;
            return Some(holds);
        }
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        if negated {
            return self.term().map(|holds| !holds);
        }
        if self.take("(") {
            self.depth += 1;
            let holds = if self.depth > MAX_DEPTH { None } else { self.any() };
            self.depth -= 1;
            return holds.filter(|_| self.take(")"));
        }
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(!word.is_empty())
    }

    fn unary(&self, operator: &str, word: &str) -> Option<bool> {
        Some(match operator {
            "-z" => word.is_empty(),
            "-n" => !word.is_empty(),
            "-d" => self.files.is_directory(word),
            "-f" => self.files.file_size(word).is_some(),
            "-e" => self.files.is_directory(word) || self.files.file_size(word).is_some(),
            "-s" => self.files.file_size(word).is_some_and(|size| size > 0),
            _ => return None,
        })
    }

    fn binary(&self, left: &str, operator: &str, right: &str) -> Option<bool> {
        let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
        let numbers = || (number(left), number(right));
        Some(match operator {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            ">" => left > right,
            "<=" => left <= right,
            ">=" => left >= right,
            "-eq" => numbers().0 == numbers().1,
            "-ne" => numbers().0 != numbers().1,
            "-lt" => numbers().0 < numbers().1,
            "-gt" => numbers().0 > numbers().1,
            "-le" => numbers().0 <= numbers().1,
            "-ge" => numbers().0 >= numbers().1,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory `/d` and a file `/f` of 3 bytes.
    struct Two;

    impl Files for Two {
        fn is_directory(&self, path: &str) -> bool {
            path == "/d"
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
            ("a =", false),
            ("( a", false),
            ("", false),
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
