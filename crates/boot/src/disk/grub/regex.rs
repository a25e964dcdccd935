//! Extended regular expressions of POSIX, as `regexp` has them: of the matches that begin first, the
//! longest.
//!
//! By hand: the crates for it take the first alternative that fits instead of the longest, and other
//! forms of brackets. A match costs no more than the product of the lengths of expression and text.

/// Steps of the largest expression.
const MAX_STEPS: usize = 2000;
/// Groups of an expression.
const MAX_GROUPS: usize = 32;
/// Groups within groups.
const MAX_DEPTH: u32 = 32;
/// The largest number in braces.
const MAX_REPEAT: u32 = 255;

/// An expression.
#[derive(Debug)]
pub(super) struct Regex {
    steps: Vec<Step>,
    groups: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Char(char),
    Any,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Start,
    End,
    /// At the border of a word, or not.
    Border(bool),
    /// Goes on in two places, the first one first.
    Split(usize, usize),
    Jump(usize),
    Save(usize),
    Match,
}

/// Where a group begins and ends, in characters.
pub(super) type Span = Option<(usize, usize)>;

impl Regex {
    /// Reads an expression; `None` if it is none, or too large.
    pub(super) fn new(text: &str) -> Option<Self> {
        let characters: Vec<char> = text.chars().collect();
        let mut parser = Parser { rest: &characters, steps: Vec::new(), groups: 1, depth: 0 };
        parser.steps.push(Step::Save(0));
        parser.alternatives()?;
        parser.push(Step::Save(1))?;
        parser.push(Step::Match)?;
        parser.rest.is_empty().then_some(Self { steps: parser.steps, groups: parser.groups })
    }

    /// What a match in a text of this length costs at most.
    pub(super) fn cost(&self, len: usize) -> u64 {
        self.steps.len() as u64 * (len as u64 + 1)
    }

    /// The whole match and the groups' parts of it.
    pub(super) fn find(&self, text: &[char]) -> Option<Vec<Span>> {
        let mut seen = vec![false; self.steps.len() * (text.len() + 1)];
        (0..=text.len()).find_map(|start| self.find_at(text, start, &mut seen))
    }

    /// The longest match that begins at `start`. A step that was seen at a place has already led to
    /// all that it can lead to.
    fn find_at(&self, text: &[char], start: usize, seen: &mut [bool]) -> Option<Vec<Span>> {
        enum Task {
            Go(usize, usize),
            Restore(usize, Option<usize>),
        }
        let mut saved: Vec<Option<usize>> = vec![None; self.groups * 2];
        let mut best: Option<Vec<Option<usize>>> = None;
        let mut tasks = vec![Task::Go(0, start)];
        while let Some(task) = tasks.pop() {
            let (mut step, mut at) = match task {
                Task::Go(step, at) => (step, at),
                Task::Restore(slot, value) => {
                    saved[slot] = value;
                    continue;
                }
            };
            loop {
                let mark = &mut seen[step * (text.len() + 1) + at];
                if std::mem::replace(mark, true) {
                    break;
                }
                match &self.steps[step] {
                    Step::Split(first, second) => {
                        tasks.push(Task::Go(*second, at));
                        step = *first;
                        continue;
                    }
                    Step::Jump(to) => {
                        step = *to;
                        continue;
                    }
                    Step::Save(slot) => {
                        tasks.push(Task::Restore(*slot, saved[*slot]));
                        saved[*slot] = Some(at);
                    }
                    Step::Match => {
                        if best.as_ref().is_none_or(|best| best[1] < Some(at)) {
                            best = Some(saved.clone());
                        }
                        break;
                    }
                    Step::Start if at == 0 => {}
                    Step::End if at == text.len() => {}
                    Step::Border(wanted) if is_border(text, at) == *wanted => {}
                    Step::Start | Step::End | Step::Border(_) => break,
                    consuming => {
                        if !text.get(at).is_some_and(|next| consuming.takes(*next)) {
                            break;
                        }
                        at += 1;
                    }
                }
                step += 1;
            }
        }
        let pair = |pair: &[Option<usize>]| Some((pair[0]?, pair[1]?));
        best.map(|best| best.chunks(2).map(pair).collect())
    }
}

impl Step {
    fn takes(&self, next: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == next,
            Self::Any => true,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&next)) != *negated
            }
            _ => false,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_border(text: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at)).is_some_and(|c| is_word(*c));
    before != text.get(at).is_some_and(|c| is_word(*c))
}

struct Parser<'a> {
    rest: &'a [char],
    steps: Vec<Step>,
    groups: usize,
    depth: u32,
}

impl Parser<'_> {
    fn push(&mut self, step: Step) -> Option<()> {
        (self.steps.len() < MAX_STEPS).then(|| self.steps.push(step))
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn alternatives(&mut self) -> Option<()> {
        let start = self.steps.len();
        self.branch()?;
        while self.take('|') {
            let first = self.steps.split_off(start);
            // Split, the first branch, a jump over the second one.
            let second = start + 1 + first.len() + 1;
            self.push(Step::Split(start + 1, second))?;
            self.append(&first, 1)?;
            let jump = self.steps.len();
            self.push(Step::Jump(0))?;
            self.branch()?;
            self.steps[jump] = Step::Jump(self.steps.len());
        }
        Some(())
    }

    /// Appends steps that were elsewhere before, `by` steps earlier.
    fn append(&mut self, steps: &[Step], by: usize) -> Option<()> {
        for step in steps {
            self.push(match step {
                Step::Split(first, second) => Step::Split(first + by, second + by),
                Step::Jump(to) => Step::Jump(to + by),
                other => other.clone(),
            })?;
        }
        Some(())
    }

    fn branch(&mut self) -> Option<()> {
        while let Some(next) = self.rest.first() {
            match next {
                '|' => break,
                ')' if self.depth > 0 => break,
                _ => {}
            }
            let start = self.steps.len();
            self.atom()?;
            while self.repetition(start)? {}
        }
        Some(())
    }

    fn atom(&mut self) -> Option<()> {
        let step = match self.next()? {
            '(' => return self.group(),
            '[' => self.brackets()?,
            '.' => Step::Any,
            '^' => Step::Start,
            '$' => Step::End,
            // Nothing is there that they could repeat.
            '*' | '+' | '?' | '{' => return None,
            '\\' => match self.next()? {
                'w' => set(false, WORD),
                'W' => set(true, WORD),
                's' => set(false, SPACE),
                'S' => set(true, SPACE),
                'b' => Step::Border(true),
                'B' => Step::Border(false),
                // What was matched before is not a regular expression.
                '1'..='9' => return None,
                other => Step::Char(other),
            },
            other => Step::Char(other),
        };
        self.push(step)
    }

    fn group(&mut self) -> Option<()> {
        self.depth += 1;
        let number = self.groups;
        if self.depth > MAX_DEPTH || number >= MAX_GROUPS {
            return None;
        }
        self.groups += 1;
        self.push(Step::Save(2 * number))?;
        self.alternatives()?;
        self.depth -= 1;
        if !self.take(')') {
            return None;
        }
        self.push(Step::Save(2 * number + 1))
    }

    /// What repeats the steps from `start` on; false if nothing does.
    fn repetition(&mut self, start: usize) -> Option<bool> {
        let (least, most) = if self.take('*') {
            (0, None)
        } else if self.take('+') {
            (1, None)
        } else if self.take('?') {
            (0, Some(1))
        } else if self.rest.first() == Some(&'{') {
            self.next();
            self.braces()?
        } else {
            return Some(false);
        };
        let body = self.steps.split_off(start);
        for _ in 0..least {
            self.append(&body, self.steps.len() - start)?;
        }
        match most {
            None => {
                let split = self.steps.len();
                self.push(Step::Split(split + 1, split + 2 + body.len()))?;
                self.append(&body, split + 1 - start)?;
                self.push(Step::Jump(split))?;
            }
            Some(most) => {
                for _ in least..most {
                    let split = self.steps.len();
                    self.push(Step::Split(split + 1, split + 1 + body.len()))?;
                    self.append(&body, split + 1 - start)?;
                }
            }
        }
        Some(true)
    }

    fn braces(&mut self) -> Option<(u32, Option<u32>)> {
        let least = self.number();
        let most = if self.take(',') { self.number() } else { Some(least?) };
        let least = least.unwrap_or(0);
        (self.take('}') && most.is_none_or(|most| least <= most && most <= MAX_REPEAT))
            .then_some((least.min(MAX_REPEAT), most))
    }

    fn number(&mut self) -> Option<u32> {
        let digits = self.rest.iter().take_while(|c| c.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        number.iter().collect::<String>().parse().ok()
    }

    fn brackets(&mut self) -> Option<Step> {
        let negated = self.take('^');
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            let next = self.next()?;
            if next == ']' && !first {
                return Some(Step::Set { negated, ranges });
            }
            first = false;
            if next == '[' && self.take(':') {
                ranges.extend(self.class()?);
                continue;
            }
            let mut last = next;
            if let ['-', end, ..] = self.rest
                && *end != ']'
            {
                last = *end;
                self.rest = &self.rest[2..];
            }
            if last < next {
                return None;
            }
            ranges.push((next, last));
        }
    }

    /// The name of a class and `:]`.
    fn class(&mut self) -> Option<&'static [(char, char)]> {
        let len = self.rest.iter().position(|c| *c == ':')?;
        let name: String = self.rest[..len].iter().collect();
        self.rest = &self.rest[len + 1..];
        self.take(']').then_some(())?;
        Some(match &*name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "blank" => &[(' ', ' '), ('\t', '\t')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => SPACE,
            "upper" => &[('A', 'Z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return None,
        })
    }
}

const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
const SPACE: &[(char, char)] = &[('\t', '\r'), (' ', ' ')];

fn set(negated: bool, ranges: &[(char, char)]) -> Step {
    Step::Set { negated, ranges: ranges.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(expression: &str, text: &str) -> Option<Vec<Option<String>>> {
        let text: Vec<char> = text.chars().collect();
        let spans = Regex::new(expression)?.find(&text)?;
        let part = |(start, end): (usize, usize)| text[start..end].iter().collect();
        Some(spans.into_iter().map(|span| span.map(part)).collect())
    }

    #[test]
    fn the_longest_of_the_first_matches_is_found() {
        for (expression, text, whole) in [
            ("a|ab", "xab", "ab"),
            ("[0-9]+", "a12b345", "12"),
            ("x*", "aaa", ""),
            ("(ab|a)(bc|c)?", "abc", "abc"),
            ("a{2,3}", "aaaa", "aaa"),
            ("^b|c$", "abc", "c"),
            ("[]x-]+", "a]-x", "]-x"),
        ] {
            let found = groups(expression, text).and_then(|groups| groups[0].clone());
            assert_eq!(found.as_deref(), Some(whole), "{expression}");
        }
        for (expression, text) in
            [("a", "b"), ("^b", "ab"), ("(", "("), ("*a", "a"), ("[z-a]", "z")]
        {
            assert_eq!(groups(expression, text), None, "{expression}");
        }
    }

    #[test]
    fn groups_have_their_parts() {
        let found = groups("([a-z]+)-([0-9]+)(x)?", "linux-17").unwrap();

        let parts: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(parts, [Some("linux-17"), Some("linux"), Some("17"), None]);
    }

    #[test]
    fn hostile_expressions_are_refused_or_cheap() {
        assert!(Regex::new(&"(".repeat(10_000)).is_none());
        assert!(Regex::new("((a{255}){255}){255}").is_none());
        assert_eq!(groups("((a*)*)*b", &"a".repeat(3000)), None);
    }

    proptest! {
        #[test]
        fn any_expression_ends(expression in "[ab(|)*+?{1,2}.^$\\[\\]\\\\-]{0,12}", text in "[ab]{0,12}") {
            let _ = groups(&expression, &text);
        }
    }
}
