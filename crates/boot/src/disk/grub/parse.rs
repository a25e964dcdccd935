//! The commands of a GRUB script: as much of it as its grammar takes at once.

use std::rc::Rc;

use super::lex::{BadToken, Lexer, Lines, Piece, Token, TokenKind, Word};

/// Commands within commands.
const MAX_DEPTH: u32 = 64;

/// Commands in their order.
pub(super) type List = Vec<Command>;

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// Words, and the text in braces after them.
    Simple { words: Vec<Word>, block: Option<Block>, line: u32 },
    /// `if` and what is done if the condition does not hold: `elif` is another one there.
    If { condition: List, body: List, otherwise: List },
    /// `for`.
    For { variable: String, values: Vec<Word>, body: List, line: u32 },
    /// `while`, or `until`.
    While { until: bool, condition: List, body: List },
}

/// The text in braces, which is read again when it is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) text: Rc<str>,
    pub(super) line: u32,
}

/// What GRUB reads before it runs anything of it: mostly one line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Chunk {
    pub(super) commands: List,
    pub(super) functions: Vec<(String, Rc<List>)>,
}

/// Where and why a script is not one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) word: String,
    pub(super) what: &'static str,
}

impl From<BadToken> for SyntaxError {
    fn from(bad: BadToken) -> Self {
        Self { line: bad.line, word: bad.word, what: bad.what }
    }
}

/// Reads the next chunk; `None` at the end. After an error the next one begins with a line of its
/// own.
pub(super) fn chunk(lines: &mut Lines<'_>) -> Option<Result<Chunk, SyntaxError>> {
    let lexer = Lexer::open(lines)?;
    Some(Parser { lexer, next: None, depth: 0 }.chunk())
}

struct Parser<'a, 'b> {
    lexer: Lexer<'a, 'b>,
    next: Option<Token>,
    /// Where it is not zero, commands go on in the next line.
    depth: u32,
}

type Parsed<T> = Result<T, SyntaxError>;

impl Parser<'_, '_> {
    fn peek(&mut self) -> Parsed<Option<&TokenKind>> {
        if self.next.is_none() {
            self.next = self.lexer.token(self.depth > 0)?;
        }
        Ok(self.next.as_ref().map(|token| &token.kind))
    }

    fn take(&mut self) -> Parsed<Option<Token>> {
        self.peek()?;
        Ok(self.next.take())
    }

    fn error<T>(&mut self, what: &'static str) -> Parsed<T> {
        let (line, word) = match &self.next {
            Some(token) => (token.line, self.lexer.source(token.start, token.end).to_owned()),
            None => (self.lexer.line(), String::new()),
        };
        let word = if word == "\n" { "the end of the line".to_owned() } else { word };
        Err(SyntaxError { line, word, what })
    }

    /// The unquoted word that comes next, if one does.
    fn keyword(&mut self) -> Parsed<Option<String>> {
        Ok(match self.peek()? {
            Some(TokenKind::Word(word)) => match &word[..] {
                [Piece::Plain(text)] => Some(text.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    fn is(&mut self, keyword: &str) -> Parsed<bool> {
        Ok(self.keyword()?.as_deref() == Some(keyword))
    }

    fn expect(&mut self, keyword: &str, what: &'static str) -> Parsed<()> {
        if !self.is(keyword)? {
            return self.error(what);
        }
        self.next = None;
        Ok(())
    }

    fn newlines(&mut self) -> Parsed<()> {
        while self.peek()? == Some(&TokenKind::Newline) {
            self.next = None;
        }
        Ok(())
    }

    /// A semicolon or a line's end, then lines' ends; false if there is none.
    fn delimiters(&mut self) -> Parsed<bool> {
        let found = matches!(self.peek()?, Some(TokenKind::Semicolon | TokenKind::Newline));
        if found {
            self.next = None;
            self.newlines()?;
        }
        Ok(found)
    }

    fn chunk(mut self) -> Parsed<Chunk> {
        let mut chunk = Chunk::default();
        self.newlines()?;
        while self.peek()?.is_some() {
            if self.is("function")? {
                chunk.functions.push(self.function()?);
            } else {
                chunk.commands.push(self.command()?);
            }
            if !self.delimiters()? {
                return self.error("a command does not end here");
            }
        }
        Ok(chunk)
    }

    /// Reads what may take several lines.
    fn nested<T>(&mut self, body: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("commands are nested too deeply");
        }
        let parsed = body(self);
        self.depth -= 1;
        parsed
    }

    /// One command or more, and what ends the last one. What comes next stays.
    fn list(&mut self, what: &'static str) -> Parsed<List> {
        let mut list = List::new();
        self.newlines()?;
        loop {
            list.push(self.command()?);
            if !self.delimiters()? {
                return self.error(what);
            }
            let ends = ["then", "elif", "else", "fi", "do", "done"];
            let keyword = self.keyword()?;
            if self.peek()? == Some(&TokenKind::Close)
                || keyword.is_some_and(|word| ends.contains(&&*word))
            {
                return Ok(list);
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        match self.keyword()?.as_deref() {
            Some("if") => self
                .nested(|parser| {
                    parser.next = None;
                    let command = parser.conditional()?;
                    if !parser.is("fi")? {
                        return parser.error("if has no fi");
                    }
                    Ok(command)
                })
                .inspect(|_| self.next = None),
            Some("for") => self.nested(Self::repetition).inspect(|_| self.next = None),
            Some(word @ ("while" | "until")) => {
                let until = word == "until";
                self.nested(|parser| {
                    parser.next = None;
                    let condition = parser.list("while has no do")?;
                    Ok(Command::While { until, condition, body: parser.body()? })
                })
                .inspect(|_| self.next = None)
            }
            Some(
                "then" | "elif" | "else" | "fi" | "do" | "done" | "in" | "case" | "esac" | "select"
                | "function",
            ) => self.error("no command begins with this word"),
            _ => self.simple(),
        }
    }

    /// After `if` or `elif`; `fi` stays.
    fn conditional(&mut self) -> Parsed<Command> {
        let condition = self.list("if has no then")?;
        self.expect("then", "if has no then")?;
        let body = self.list("if has no fi")?;
        let otherwise = if self.is("elif")? {
            self.next = None;
            vec![self.nested(Self::conditional)?]
        } else if self.is("else")? {
            self.next = None;
            self.list("if has no fi")?
        } else {
            Vec::new()
        };
        Ok(Command::If { condition, body, otherwise })
    }

    fn repetition(&mut self) -> Parsed<Command> {
        self.next = None;
        let line = self.lexer.line();
        let variable = match self.keyword()? {
            Some(name) if is_name(&name) => name,
            _ => return self.error("for has no variable"),
        };
        self.next = None;
        self.expect("in", "for has no in")?;
        let values = self.words()?;
        if !self.delimiters()? {
            return self.error("for has no do");
        }
        Ok(Command::For { variable, values, body: self.body()?, line })
    }

    /// `do` and what follows; `done` stays.
    fn body(&mut self) -> Parsed<List> {
        self.expect("do", "for or while has no do")?;
        let body = self.list("for or while has no done")?;
        if !self.is("done")? {
            return self.error("for or while has no done");
        }
        Ok(body)
    }

    fn function(&mut self) -> Parsed<(String, Rc<List>)> {
        self.next = None;
        let name = match self.keyword()? {
            Some(name) if is_name(&name) => name,
            _ => return self.error("a function has no name"),
        };
        self.next = None;
        let body = self.nested(|parser| {
            parser.newlines()?;
            if parser.peek()? != Some(&TokenKind::Open) {
                return parser.error("a function has no {");
            }
            parser.next = None;
            let body = parser.list("a command does not end before }")?;
            if parser.peek()? != Some(&TokenKind::Close) {
                return parser.error("a function has no }");
            }
            Ok(body)
        })?;
        self.next = None;
        Ok((name, Rc::new(body)))
    }

    fn words(&mut self) -> Parsed<Vec<Word>> {
        let mut words = Vec::new();
        while let Some(TokenKind::Word(word)) = self.peek()? {
            words.push(word.clone());
            self.next = None;
        }
        Ok(words)
    }

    fn simple(&mut self) -> Parsed<Command> {
        let line = self.next.as_ref().map_or(self.lexer.line(), |token| token.line);
        let words = self.words()?;
        if words.is_empty() {
            return self.error("a command is missing");
        }
        let block = match self.peek()? {
            Some(TokenKind::Open) => Some(self.nested(Self::block)?),
            _ => None,
        };
        if block.is_some() {
            self.next = None;
        }
        Ok(Command::Simple { words, block, line })
    }

    /// What is in braces; the closing one stays.
    fn block(&mut self) -> Parsed<Block> {
        let open = self.take()?;
        let (start, line) = open.map_or((0, 0), |token| (token.end, token.line));
        self.newlines()?;
        // Unlike elsewhere the last command may end with the brace.
        loop {
            self.command()?;
            let ended = self.delimiters()?;
            if self.peek()? == Some(&TokenKind::Close) {
                break;
            }
            if !ended {
                return self.error("a command does not end here");
            }
        }
        let end = self.next.as_ref().map_or(start, |token| token.start);
        Ok(Block { text: self.lexer.source(start, end).into(), line })
    }
}

fn is_name(word: &str) -> bool {
    const KEYWORDS: [&str; 15] = [
        "case", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in",
        "select", "then", "until", "while",
    ];
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(script: &str) -> Vec<Result<Chunk, SyntaxError>> {
        let mut lines = Lines::of_file(script);
        std::iter::from_fn(|| chunk(&mut lines)).collect()
    }

    #[test]
    fn what_is_no_script_names_its_line_and_word() {
        for (script, line, word) in [
            ("if true; then\necho", 2, ""),
            ("if true\nfi", 2, "fi"),
            ("if true }", 1, "}"),
            ("\n}", 2, "}"),
            ("menuentry x {\n", 1, ""),
            ("function { }", 1, "{"),
            ("function f { }", 1, "}"),
            ("for x y; do done", 1, "y"),
            ("while true\ndo\n", 2, ""),
            ("fi", 1, "fi"),
            ("a;\nif ; then", 2, ";"),
            ("if true; then fi", 1, "fi"),
            ("a { b;; }", 1, ";;"),
            ("if a; then function f { b; }; fi", 1, "function"),
        ] {
            let error = chunks(script).into_iter().find_map(Result::err).expect(script);
            assert_eq!((error.line, &*error.word), (line, word), "{script}: {}", error.what);
        }
    }

    #[test]
    fn after_an_error_the_next_line_is_read() {
        let found = chunks("a\nfi; b\nc\nif true; then\n d\n done\n e\nfi\nf");

        let good: Vec<bool> = found.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true, false, true, false, true]);
    }

    #[test]
    fn nesting_has_an_end() {
        let error = chunks(&"if true; then ".repeat(1000)).pop().unwrap().unwrap_err();

        assert_eq!(error.what, "commands are nested too deeply");
    }

    #[test]
    fn a_block_is_kept_as_text() {
        let found = chunks("menuentry 'a' {\n b 'c';\n d }").pop().unwrap().unwrap();

        let Command::Simple { words, block, line } = &found.commands[0] else { panic!() };
        let block = block.as_ref().unwrap();
        assert_eq!((words.len(), *line, block.line), (2, 1, 1));
        assert_eq!(&*block.text, "\n b 'c';\n d ");
    }
}
