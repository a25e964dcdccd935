//! Words of a GRUB script.

use std::iter::Peekable;
use std::str::Chars;

/// A part of a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// Characters as they are.
    Text {
        text: String,
        /// They cannot make a keyword, and the word is one even if they are none.
        quoted: bool,
    },
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
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TokenKind {
    Word(Word),
    /// A line's end or a semicolon.
    End,
    /// `{` by itself.
    Open,
    /// `}` by itself.
    Close,
}

/// The line in which a quotation begins that does not end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unfinished(pub(super) u32);

/// Parts a script into tokens.
pub(super) fn tokens(script: &str) -> Result<Vec<Token>, Unfinished> {
    let mut lexer = Lexer { rest: script.chars().peekable(), line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// The text of a word that is one unquoted piece of text, as a keyword is.
pub(super) fn plain(word: &Word) -> Option<&str> {
    match &word[..] {
        [Piece::Text { text, quoted: false }] => Some(text),
        _ => None,
    }
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    line: u32,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += u32::from(next == Some('\n'));
        next
    }

    /// Takes a character if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest.peek() == Some(&wanted);
        if found {
            self.next();
        }
        found
    }

    fn token(&mut self) -> Result<Option<Token>, Unfinished> {
        loop {
            let line = self.line;
            let token = |kind| Ok(Some(Token { kind, line }));
            match self.rest.peek() {
                None => return Ok(None),
                Some(' ' | '\t' | '\r') => drop(self.next()),
                Some('#') => {
                    while self.rest.peek().is_some_and(|c| *c != '\n') {
                        self.next();
                    }
                }
                Some('\n' | ';') => {
                    self.next();
                    return token(TokenKind::End);
                }
                Some('{') => {
                    self.next();
                    return token(TokenKind::Open);
                }
                Some('}') => {
                    self.next();
                    return token(TokenKind::Close);
                }
                Some(_) => {
                    let word = self.word()?;
                    // A line that is continued may leave nothing.
                    if !word.is_empty() {
                        return token(TokenKind::Word(word));
                    }
                }
            }
        }
    }

    fn word(&mut self) -> Result<Word, Unfinished> {
        let mut word = Word::new();
        while let Some(next) = self.rest.peek().copied() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' => break,
                '\'' => {
                    self.next();
                    self.single(&mut word)?;
                }
                '"' => {
                    self.next();
                    self.double(&mut word)?;
                }
                '$' => {
                    self.next();
                    self.dollar(&mut word, false);
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        // A line that goes on.
                        Some('\n') | None => {}
                        Some(escaped) => push(&mut word, escaped, true),
                    }
                }
                other => {
                    self.next();
                    push(&mut word, other, false);
                }
            }
        }
        Ok(word)
    }

    fn single(&mut self, word: &mut Word) -> Result<(), Unfinished> {
        let start = self.line;
        word.push(Piece::Text { text: String::new(), quoted: true });
        loop {
            match self.next().ok_or(Unfinished(start))? {
                '\'' => return Ok(()),
                other => push(word, other, true),
            }
        }
    }

    fn double(&mut self, word: &mut Word) -> Result<(), Unfinished> {
        let start = self.line;
        word.push(Piece::Text { text: String::new(), quoted: true });
        loop {
            match self.next().ok_or(Unfinished(start))? {
                '"' => return Ok(()),
                '$' => self.dollar(word, true),
                '\\' => match self.next().ok_or(Unfinished(start))? {
                    '\n' => {}
                    escaped @ ('"' | '$' | '\\') => push(word, escaped, true),
                    other => {
                        push(word, '\\', true);
                        push(word, other, true);
                    }
                },
                other => push(word, other, true),
            }
        }
    }

    /// What follows a `$`: a variable, or nothing that makes one.
    fn dollar(&mut self, word: &mut Word, quoted: bool) {
        let name: String = if self.take('{') {
            let mut name = String::new();
            while let Some(next) = self.next() {
                if next == '}' {
                    break;
                }
                name.push(next);
            }
            name
        } else {
            match self.rest.peek().copied() {
                Some(one @ ('?' | '@' | '*' | '#' | '0'..='9')) => {
                    self.next();
                    one.into()
                }
                _ => {
                    let mut name = String::new();
                    while let Some(next) = self.rest.peek().copied()
                        && (next.is_ascii_alphanumeric() || next == '_')
                    {
                        name.push(next);
                        self.next();
                    }
                    name
                }
            }
        };
        if name.is_empty() {
            push(word, '$', quoted);
        } else {
            word.push(Piece::Variable { name, quoted });
        }
    }
}

/// Adds a character to the word's last piece if that is of the same kind.
fn push(word: &mut Word, next: char, as_quoted: bool) {
    match word.last_mut() {
        Some(Piece::Text { text, quoted }) if *quoted == as_quoted => text.push(next),
        _ => word.push(Piece::Text { text: next.into(), quoted: as_quoted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<Word> {
        let words = tokens(script).unwrap().into_iter().filter_map(|token| match token.kind {
            TokenKind::Word(word) => Some(word),
            _ => None,
        });
        words.collect()
    }

    fn text(text: &str, quoted: bool) -> Piece {
        Piece::Text { text: text.into(), quoted }
    }

    fn variable(name: &str, quoted: bool) -> Piece {
        Piece::Variable { name: name.into(), quoted }
    }

    #[test]
    fn quotes_and_variables_make_pieces() {
        let found = words(r#"set a='x $y' "b ${c}\"d" e$f-$1 \$g"#);

        assert_eq!(
            found,
            [
                vec![text("set", false)],
                vec![text("a=", false), text("x $y", true)],
                vec![text("b ", true), variable("c", true), text("\"d", true)],
                vec![
                    text("e", false),
                    variable("f", false),
                    text("-", false),
                    variable("1", false)
                ],
                vec![text("$", true), text("g", false)],
            ]
        );
    }

    #[test]
    fn comments_and_continued_lines_leave_no_words() {
        assert_eq!(words("# a comment\n\\\n \\\n").len(), 0);
        assert_eq!(words("a#b c\\\nd"), [vec![text("a#b", false)], vec![text("cd", false)]]);
    }

    #[test]
    fn a_quotation_without_an_end_names_its_line() {
        assert_eq!(tokens("a\n'b\nc"), Err(Unfinished(2)));
        assert_eq!(tokens("\"b\\"), Err(Unfinished(1)));
    }

    #[test]
    fn braces_by_themselves_are_tokens() {
        let kinds: Vec<_> =
            tokens("f {\n}").unwrap().into_iter().map(|token| (token.kind, token.line)).collect();

        assert_eq!(kinds[1..], [(TokenKind::Open, 1), (TokenKind::End, 1), (TokenKind::Close, 2)]);
    }
}
