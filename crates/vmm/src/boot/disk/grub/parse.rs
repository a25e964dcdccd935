//! The commands of a GRUB script.

use std::rc::Rc;

use super::lex::{Token, TokenKind, Word, plain, tokens};

/// Commands within commands.
const MAX_DEPTH: u32 = 64;

/// Commands in their order.
pub(super) type Block = Vec<Statement>;

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Statement {
    /// Words, and the block that `menuentry` and `submenu` have.
    Command { words: Vec<Word>, block: Option<Rc<Block>> },
    /// `if`: pairs of what is asked and what is done, then what is done otherwise.
    If { arms: Vec<(Block, Block)>, otherwise: Block },
    /// `for`.
    For { variable: String, values: Vec<Word>, body: Block },
    /// `while`, or `until`.
    While { until: bool, condition: Block, body: Block },
    /// `function`.
    Function { name: String, body: Rc<Block> },
}

/// Where and why a script is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u32,
    pub(super) what: &'static str,
}

/// Reads a script.
pub(super) fn parse(script: &str) -> Result<Block, SyntaxError> {
    let tokens = tokens(script)
        .map_err(|error| SyntaxError { line: error.0, what: "a quotation does not end" })?;
    let mut parser = Parser { tokens: &tokens, depth: 0, line: 1 };
    let block = parser.block(&[])?;
    match parser.tokens {
        [] => Ok(block),
        _ => Err(parser.error("there is a } that closes nothing")),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: u32,
    line: u32,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError { line: self.tokens.first().map_or(self.line, |token| token.line), what }
    }

    fn peek(&self) -> Option<&'a TokenKind> {
        self.tokens.first().map(|token| &token.kind)
    }

    fn next(&mut self) -> Option<&'a TokenKind> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        self.line = first.line;
        Some(&first.kind)
    }

    /// The keyword that comes next, if one does.
    fn keyword(&self) -> Option<&'a str> {
        match self.peek() {
            Some(TokenKind::Word(word)) => plain(word),
            _ => None,
        }
    }

    fn expect(&mut self, keyword: &str, what: &'static str) -> Result<(), SyntaxError> {
        if self.keyword() != Some(keyword) {
            return Err(self.error(what));
        }
        self.next();
        Ok(())
    }

    fn skip_ends(&mut self) {
        while self.peek() == Some(&TokenKind::End) {
            self.next();
        }
    }

    /// Commands up to one of the keywords, to a `}` or to the end; what ends them stays.
    fn block(&mut self, ends: &[&str]) -> Result<Block, SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("commands are nested too deeply"));
        }
        let mut block = Block::new();
        loop {
            self.skip_ends();
            match (self.peek(), self.keyword()) {
                (None | Some(TokenKind::Close), _) => break,
                (_, Some(word)) if ends.contains(&word) => break,
                _ => block.push(self.statement()?),
            }
        }
        self.depth -= 1;
        Ok(block)
    }

    fn braces(&mut self) -> Result<Block, SyntaxError> {
        self.skip_ends();
        if self.next() != Some(&TokenKind::Open) {
            return Err(self.error("a { is missing"));
        }
        let block = self.block(&[])?;
        if self.next() != Some(&TokenKind::Close) {
            return Err(self.error("a } is missing"));
        }
        Ok(block)
    }

    fn statement(&mut self) -> Result<Statement, SyntaxError> {
        match self.keyword() {
            Some("if") => self.conditional(),
            Some("for") => self.repetition(),
            Some(word @ ("while" | "until")) => {
                let until = word == "until";
                self.next();
                let condition = self.block(&["do"])?;
                Ok(Statement::While { until, condition, body: self.do_done()? })
            }
            Some("function") => {
                self.next();
                let name = self.keyword().ok_or_else(|| self.error("a function has no name"))?;
                self.next();
                Ok(Statement::Function { name: name.to_owned(), body: Rc::new(self.braces()?) })
            }
            Some("then" | "elif" | "else" | "fi" | "do" | "done") => {
                Err(self.error("a word of if or for has none before it"))
            }
            _ => self.command(),
        }
    }

    fn conditional(&mut self) -> Result<Statement, SyntaxError> {
        let mut arms = Vec::new();
        let mut otherwise = Block::new();
        loop {
            // `if` or `elif`.
            self.next();
            let condition = self.block(&["then"])?;
            self.expect("then", "if has no then")?;
            arms.push((condition, self.block(&["elif", "else", "fi"])?));
            match self.keyword() {
                Some("elif") => continue,
                Some("else") => {
                    self.next();
                    otherwise = self.block(&["fi"])?;
                }
                _ => {}
            }
            self.expect("fi", "if has no fi")?;
            return Ok(Statement::If { arms, otherwise });
        }
    }

    fn repetition(&mut self) -> Result<Statement, SyntaxError> {
        self.next();
        let variable = self.keyword().ok_or_else(|| self.error("for has no variable"))?;
        self.next();
        self.expect("in", "for has no in")?;
        let values = self.words();
        self.skip_ends();
        Ok(Statement::For { variable: variable.to_owned(), values, body: self.do_done()? })
    }

    fn do_done(&mut self) -> Result<Block, SyntaxError> {
        self.expect("do", "for or while has no do")?;
        let body = self.block(&["done"])?;
        self.expect("done", "for or while has no done")?;
        Ok(body)
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some(TokenKind::Word(word)) = self.peek() {
            words.push(word.clone());
            self.next();
        }
        words
    }

    fn command(&mut self) -> Result<Statement, SyntaxError> {
        let words = self.words();
        let has_block = matches!(words.first().and_then(plain), Some("menuentry" | "submenu"));
        let block = match self.peek() {
            Some(TokenKind::Open) if has_block => Some(Rc::new(self.braces()?)),
            Some(TokenKind::Open) => return Err(self.error("a { has no menuentry before it")),
            _ => None,
        };
        Ok(Statement::Command { words, block })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_script_names_its_line() {
        for (script, line, what) in [
            ("if true; then\necho", 2, "if has no fi"),
            ("if true\nfi", 2, "a word of if or for has none before it"),
            ("if true }", 1, "if has no then"),
            ("\n}", 2, "there is a } that closes nothing"),
            ("menuentry x {\n", 1, "a } is missing"),
            ("function { }", 1, "a function has no name"),
            ("for x y; do done", 1, "for has no in"),
            ("while true\ndo\n", 3, "for or while has no done"),
            ("fi", 1, "a word of if or for has none before it"),
            ("echo 'x", 1, "a quotation does not end"),
            ("echo {", 1, "a { has no menuentry before it"),
        ] {
            let error = parse(script).unwrap_err();
            assert_eq!(error.what, what, "{script}");
            assert!(error.line <= line, "{script}: line {}", error.line);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let script = "if true; then ".repeat(1000);

        assert_eq!(parse(&script).unwrap_err().what, "commands are nested too deeply");
    }

    #[test]
    fn keywords_are_arguments_after_the_first_word() {
        let block = parse("echo if then fi; menuentry 'a' { b }").unwrap();

        assert_eq!(block.len(), 2);
    }
}
