//! Words of a GRUB script, a line at a time: what the parser does not ask for is not read, as the
//! commands of a line are run before the next line is looked at.

/// A part of a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// Characters outside quotes; a backslash takes its meaning from the one after it.
    Plain(String),
    /// Characters as they are.
    Quoted(String),
    /// The value of a variable; unless quoted, blanks in it part words.
    Variable { name: String, quoted: bool },
}

/// A word before its variables have values.
pub(super) type Word = Vec<Piece>;

/// A token and the line that it starts in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) line: u32,
    /// Where it begins and ends in what has been read.
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TokenKind {
    Word(Word),
    /// A line's end.
    Newline,
    Semicolon,
    /// `{`.
    Open,
    /// `}`.
    Close,
}

/// What cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BadToken {
    pub(super) line: u32,
    pub(super) what: &'static str,
    /// As it is written.
    pub(super) word: String,
}

/// The lines of a script that are still to be read.
pub(super) struct Lines<'a> {
    rest: Option<&'a str>,
    /// That of the line that was read last, from 1.
    number: u32,
    /// Lines that begin with `#` are left out whatever is around them, as of a file.
    file: bool,
}

impl<'a> Lines<'a> {
    /// Those of a file.
    pub(super) const fn of_file(text: &'a str) -> Self {
        Self { rest: Some(text), number: 0, file: true }
    }

    /// Those of a text in a script, whose first line is `line` there.
    pub(super) const fn of_text(text: &'a str, line: u32) -> Self {
        Self { rest: Some(text), number: line.saturating_sub(1), file: false }
    }

    pub(super) const fn is_of_file(&self) -> bool {
        self.file
    }

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let rest = self.rest?;
            let (line, rest) = match rest.split_once('\n') {
                Some((line, rest)) => (line, Some(rest)),
                None => (rest, None),
            };
            self.rest = rest;
            self.number = self.number.saturating_add(1);
            // The text after a file's last line's end is not a line.
            if self.file && (line.starts_with('#') || (line.is_empty() && rest.is_none())) {
                continue;
            }
            return Some(line);
        }
    }
}

/// Reads tokens of as many lines as they are asked for.
pub(super) struct Lexer<'a, 'b> {
    lines: &'b mut Lines<'a>,
    /// All that has been read.
    text: String,
    at: usize,
    line: u32,
}

impl<'a, 'b> Lexer<'a, 'b> {
    /// `None` where no line is left.
    pub(super) fn open(lines: &'b mut Lines<'a>) -> Option<Self> {
        let mut lexer = Self { lines, text: String::new(), at: 0, line: 0 };
        lexer.read_line().then_some(lexer)
    }

    /// What has been read between two places.
    pub(super) fn source(&self, start: usize, end: usize) -> &str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// The line that is being read.
    pub(super) const fn line(&self) -> u32 {
        self.line
    }

    fn read_line(&mut self) -> bool {
        let Some(line) = self.lines.next() else { return false };
        // GRUB reads files without carriage returns.
        self.text.extend(line.chars().filter(|c| *c != '\r' || !self.lines.file));
        self.text.push('\n');
        self.line = self.lines.number;
        true
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn bad(&self, what: &'static str, start: usize) -> BadToken {
        let word = self.text[start..].split([' ', '\n']).next().unwrap_or_default();
        BadToken { line: self.line, what, word: word.to_owned() }
    }

    /// The next token; `None` at the end of what is read, which goes on to the next line only
    /// where `more` says so.
    pub(super) fn token(&mut self, more: bool) -> Result<Option<Token>, BadToken> {
        loop {
            let (line, start) = (self.line, self.at);
            let Some(next) = self.peek() else {
                if !more {
                    return Ok(None);
                }
                if !self.read_line() {
                    return Err(self.bad("the script ends before its commands do", self.at));
                }
                continue;
            };
            let kind = match next {
                ' ' | '\t' => {
                    self.next();
                    continue;
                }
                '#' => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.next();
                    }
                    continue;
                }
                '\n' => TokenKind::Newline,
                ';' => TokenKind::Semicolon,
                '{' => TokenKind::Open,
                '}' => TokenKind::Close,
                _ => {
                    let word = self.word(start)?;
                    return Ok(Some(Token { kind: word, line, start, end: self.at }));
                }
            };
            self.next();
            if kind == TokenKind::Semicolon && self.peek() == Some(';') {
                return Err(self.bad("two semicolons do not end a command", start));
            }
            return Ok(Some(Token { kind, line, start, end: self.at }));
        }
    }

    fn word(&mut self, start: usize) -> Result<TokenKind, BadToken> {
        let mut word = Word::new();
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\n' | ';' | '{' | '}' => break,
                '|' | '&' | '<' | '>' if self.at == start => {
                    return Err(self.bad("GRUB has no such operator", start));
                }
                '|' | '&' | '<' | '>' => break,
                '\'' => {
                    self.next();
                    let text = self.single()?;
                    word.push(Piece::Quoted(text));
                }
                '"' => {
                    self.next();
                    self.double(&mut word, false)?;
                }
                '$' => {
                    self.next();
                    if self.peek() == Some('"') {
                        // Text to translate; there is no translation here.
                        self.next();
                        self.double(&mut word, true)?;
                    } else {
                        let name = self.variable().ok_or_else(|| self.bad(NO_NAME, start))?;
                        word.push(Piece::Variable { name, quoted: false });
                    }
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        // A line that goes on.
                        Some('\n') if self.at == self.text.len() && !self.read_line() => {
                            return Err(self.bad("the script ends in a line that goes on", start));
                        }
                        Some('\n') => {}
                        Some(escaped) => {
                            push(&mut word, '\\');
                            push(&mut word, escaped);
                        }
                        None => {}
                    }
                }
                other => {
                    self.next();
                    push(&mut word, other);
                }
            }
        }
        match &self.text[start..self.at] {
            "[[" | "]]" => Err(self.bad("GRUB has no such word", start)),
            _ => Ok(TokenKind::Word(word)),
        }
    }

    /// Makes sure that a quotation's next character is there.
    fn quoted(&mut self, start: usize) -> Result<char, BadToken> {
        loop {
            match self.next() {
                Some(next) => return Ok(next),
                None if self.read_line() => {}
                None => return Err(self.bad("a quotation does not end", start)),
            }
        }
    }

    fn single(&mut self) -> Result<String, BadToken> {
        let start = self.at;
        let mut text = String::new();
        loop {
            match self.quoted(start)? {
                '\'' => return Ok(text),
                other => text.push(other),
            }
        }
    }

    fn double(&mut self, word: &mut Word, lenient: bool) -> Result<(), BadToken> {
        let start = self.at;
        let mut text = String::new();
        loop {
            match self.quoted(start)? {
                '"' => {
                    word.push(Piece::Quoted(text));
                    return Ok(());
                }
                '$' => match self.variable() {
                    Some(name) => {
                        word.push(Piece::Quoted(std::mem::take(&mut text)));
                        word.push(Piece::Variable { name, quoted: true });
                    }
                    None if lenient => text.push('$'),
                    None => return Err(self.bad(NO_NAME, start)),
                },
                '\\' => match self.quoted(start)? {
                    '\n' => {}
                    escaped @ ('"' | '$' | '\\') => text.push(escaped),
                    other => {
                        text.push('\\');
                        text.push(other);
                    }
                },
                other => text.push(other),
            }
        }
    }

    /// The name after a `$`; `None`, and nothing read, if there is none.
    fn variable(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let (name, len) = match rest.strip_prefix('{') {
            Some(inner) => {
                let name = name(inner)?;
                inner[name.len()..].starts_with('}').then_some((name, name.len() + 2))?
            }
            None => {
                let name = name(rest)?;
                (name, name.len())
            }
        };
        let name = name.to_owned();
        self.at += len;
        Some(name)
    }
}

const NO_NAME: &str = "a $ has no name after it";

/// The name of a variable at the start of a text.
fn name(text: &str) -> Option<&str> {
    let first = text.chars().next()?;
    let end = |fits: fn(char) -> bool| text.find(|c: char| !fits(c)).unwrap_or(text.len());
    let len = match first {
        '?' | '#' | '*' | '@' => 1,
        '0'..='9' => end(|c| c.is_ascii_digit()),
        'a'..='z' | 'A'..='Z' | '_' => end(|c| c.is_ascii_alphanumeric() || c == '_'),
        _ => return None,
    };
    Some(&text[..len])
}

/// Adds a character to the word's last piece if that is plain too.
fn push(word: &mut Word, next: char) {
    match word.last_mut() {
        Some(Piece::Plain(text)) => text.push(next),
        _ => word.push(Piece::Plain(next.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Result<Vec<Word>, BadToken> {
        let mut lines = Lines::of_file(script);
        let mut words = Vec::new();
        while let Some(mut lexer) = Lexer::open(&mut lines) {
            while let Some(token) = lexer.token(false)? {
                if let TokenKind::Word(word) = token.kind {
                    words.push(word);
                }
            }
        }
        Ok(words)
    }

    fn plain(text: &str) -> Piece {
        Piece::Plain(text.into())
    }

    fn quoted(text: &str) -> Piece {
        Piece::Quoted(text.into())
    }

    fn variable(name: &str, quoted: bool) -> Piece {
        Piece::Variable { name: name.into(), quoted }
    }

    #[test]
    fn quotes_and_variables_make_pieces() {
        let found = words(r#"set a='x $y' "b ${c}\"d" e$f-$10 \$g $?"#).unwrap();

        assert_eq!(
            found,
            [
                vec![plain("set")],
                vec![plain("a="), quoted("x $y")],
                vec![quoted("b "), variable("c", true), quoted("\"d")],
                vec![plain("e"), variable("f", false), plain("-"), variable("10", false)],
                vec![plain("\\$g")],
                vec![variable("?", false)],
            ]
        );
    }

    #[test]
    fn comments_and_continued_lines_leave_no_words() {
        assert_eq!(words("# a comment\n #b\n\\\n\n").unwrap(), [vec![]; 1]);
        assert_eq!(words("a#b c\\\nd").unwrap(), [vec![plain("a#b")], vec![plain("cd")]]);
        assert_eq!(words("'a\n#b\nc'").unwrap(), [vec![quoted("a\nc")]]);
    }

    #[test]
    fn what_cannot_be_read_names_its_line_and_word() {
        for (script, line, word) in [
            ("a\n'b\nc", 3, "b"),
            ("x\"$\"", 1, "$\""),
            ("a\necho a|b c", 2, "|b"),
            ("[[ a", 1, "[["),
            ("a;; b", 1, ";;"),
            ("${a", 1, "${a"),
        ] {
            let error = words(script).unwrap_err();
            assert_eq!((error.line, &*error.word), (line, word), "{script}");
        }
    }

    #[test]
    fn the_next_line_is_read_only_where_it_is_asked_for() {
        let mut lines = Lines::of_file("a\nb\n");
        let mut lexer = Lexer::open(&mut lines).unwrap();

        let kinds: Vec<bool> = (0..3).map(|_| lexer.token(false).unwrap().is_some()).collect();
        let next = lexer.token(true).unwrap().unwrap();

        assert_eq!((kinds, next.line), (vec![true, true, false], 2));
        assert!(lexer.token(true).is_ok() && lexer.token(true).is_err());
    }
}
