//! From words as they are written to the arguments of a command.

use super::glob::{self, Letter};
use super::lex::{Piece, Word};
use super::number::is_space;
use super::run::{Run, Stop};

/// An argument as it grows; `None` as long as nothing, not even an empty quotation, is in it.
type Argument = Option<Vec<Letter>>;

impl Run<'_> {
    /// The words with their variables' values, and names of files for patterns that fit some.
    pub(super) fn expand(&mut self, words: &[Word]) -> Result<Vec<String>, Stop> {
        let mut arguments: Vec<Argument> = Vec::new();
        for word in words {
            next(&mut arguments);
            for piece in word {
                self.add(&mut arguments, piece)?;
            }
        }
        let mut expanded = Vec::new();
        for argument in arguments.into_iter().flatten() {
            match glob::expand(self, &argument)? {
                Some(files) => expanded.extend(files),
                None => expanded.push(argument.iter().map(|letter| letter.character).collect()),
            }
        }
        Ok(expanded)
    }

    fn add(&mut self, arguments: &mut Vec<Argument>, piece: &Piece) -> Result<(), Stop> {
        match piece {
            Piece::Plain(text) => {
                self.spend(text.len() as u64)?;
                let mut rest = text.chars();
                while let Some(next) = rest.next() {
                    match next {
                        '\\' => append(arguments, rest.next().into_iter().map(Letter::literal)),
                        other => append(arguments, [Letter::plain(other)]),
                    }
                }
            }
            Piece::Quoted(text) => {
                self.spend(text.len() as u64)?;
                append(arguments, text.chars().map(Letter::literal));
            }
            Piece::Variable { name, quoted } => {
                let values = self.values(name, *quoted);
                for (index, value) in values.into_iter().enumerate() {
                    self.spend(value.len() as u64 + 1)?;
                    if index > 0 {
                        next(arguments);
                    }
                    if *quoted {
                        append(arguments, value.chars().map(Letter::literal));
                    } else {
                        append_split(arguments, &value);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a variable gives: several words for some of the special ones, none for one that is
    /// empty.
    fn values(&self, name: &str, quoted: bool) -> Vec<String> {
        let parameters = self.parameters();
        match name {
            "#" => {
                self.has_parameters().then(|| parameters.len().to_string()).into_iter().collect()
            }
            "@" => parameters.to_vec(),
            "*" if quoted => {
                if parameters.is_empty() {
                    Vec::new()
                } else {
                    vec![parameters.join(" ")]
                }
            }
            "*" => parameters.to_vec(),
            _ if name.starts_with(|c: char| c.is_ascii_digit()) => {
                let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                number.and_then(|index| parameters.get(index)).cloned().into_iter().collect()
            }
            _ => {
                let value = self.variable(name);
                if value.is_empty() { Vec::new() } else { vec![value.to_owned()] }
            }
        }
    }
}

/// Begins an argument, unless nothing is in the last one.
fn next(arguments: &mut Vec<Argument>) {
    if !matches!(arguments.last(), Some(None)) {
        arguments.push(None);
    }
}

fn append(arguments: &mut Vec<Argument>, letters: impl IntoIterator<Item = Letter>) {
    if arguments.is_empty() {
        arguments.push(None);
    }
    if let Some(last) = arguments.last_mut() {
        last.get_or_insert_default().extend(letters);
    }
}

/// Appends a value whose blanks part words.
fn append_split(arguments: &mut Vec<Argument>, value: &str) {
    for (index, part) in value.split(is_space).filter(|part| !part.is_empty()).enumerate() {
        if index > 0 {
            next(arguments);
        }
        // A backslash in a value is one, but a pattern in it is a pattern.
        append(arguments, part.chars().map(Letter::plain));
    }
}
