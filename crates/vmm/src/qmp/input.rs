//! JSON values in a stream of bytes that may hold anything.
//!
//! As in QEMU, a value may be spread over lines, and values need nothing between them. What cannot be
//! a value discards the rest of its line, and is answered with one error. Where a value that began on an
//! earlier line goes wrong, its first line alone is given up and the lines after it are read again;
//! and a line that is a whole request is always taken as that, so that one line cut short does not
//! swallow the requests after it.

use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

use super::request::is_request;

/// Longest value in bytes, with what is between its lines.
pub(super) const MAX_VALUE: usize = 1 << 20;
/// Deepest nesting of arrays and objects: less than what serde_json refuses.
pub(super) const MAX_DEPTH: u32 = 100;

/// Why input is not a JSON value.
#[derive(Debug, Error)]
pub(super) enum Malformed {
    /// Outside of any value there is a byte that begins neither an object nor an array.
    #[error("JSON parse error: a request begins with '{{'")]
    Start,
    /// A syntax error.
    #[error("JSON parse error: {0}")]
    Syntax(serde_json::Error),
    /// The value was not complete when another request came, or the client was done.
    #[error("JSON parse error: the value is cut short")]
    CutShort,
    /// Longer than [`MAX_VALUE`].
    #[error("JSON parse error: the value is longer than {MAX_VALUE} bytes")]
    TooLong,
    /// Deeper than [`MAX_DEPTH`].
    #[error("JSON parse error: the value is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Where the scan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Between values.
    Between,
    /// In a value, at this depth.
    Value { depth: u32 },
    /// In a string of a value.
    String { depth: u32, escaped: bool },
    /// After an error, up to the end of the line.
    Skipping,
}

/// The stream.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// Where the value begins that the scan is in.
    start: usize,
    /// Where its last line begins.
    line: usize,
    /// Up to where the bytes are scanned.
    scanned: usize,
    /// Length that the value had when it was last parsed.
    checked: usize,
    place: Place,
}

impl Input {
    pub(super) fn new() -> Self {
        let (bytes, place) = (Vec::new(), Place::Between);
        Self { bytes, start: 0, line: 0, scanned: 0, checked: 0, place }
    }

    /// Appends what the client sent.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.scanned -= self.start;
        self.line = self.line.saturating_sub(self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next value, or what is wrong; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Result<Value, Malformed>> {
        while let Some(&byte) = self.bytes.get(self.scanned) {
            self.scanned += 1;
            match self.place {
                Place::Between => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => self.start = self.scanned,
                    b'{' | b'[' => self.begin(),
                    _ => {
                        self.skip_line();
                        return Some(Err(Malformed::Start));
                    }
                },
                Place::Skipping => {
                    self.start = self.scanned;
                    if byte == b'\n' {
                        self.place = Place::Between;
                    }
                }
                Place::String { depth, escaped } => {
                    let inside = |escaped| Place::String { depth, escaped };
                    self.place = match byte {
                        // No control character may be in a string, and with this one the line ends.
                        b'\n' => {
                            let error = self.syntax_error();
                            return Some(Err(self.give_up_line(error)));
                        }
                        _ if escaped => inside(false),
                        b'\\' => inside(true),
                        b'"' => Place::Value { depth },
                        _ => inside(false),
                    };
                }
                Place::Value { depth } => match byte {
                    b'"' => self.place = Place::String { depth, escaped: false },
                    b'{' | b'[' if depth == MAX_DEPTH => {
                        return Some(Err(self.give_up_line(Malformed::TooDeep)));
                    }
                    b'{' | b'[' => self.place = Place::Value { depth: depth + 1 },
                    b'}' | b']' if depth == 1 => return Some(self.take_value()),
                    b'}' | b']' => self.place = Place::Value { depth: depth - 1 },
                    b'\n' => {
                        if let Some(error) = self.look_at_line() {
                            return Some(Err(self.give_up_line(error)));
                        }
                    }
                    _ => {}
                },
            }
            if self.scanned - self.start > MAX_VALUE {
                self.skip_line();
                return Some(Err(Malformed::TooLong));
            }
        }
        None
    }

    /// As [`Input::next`] when no more bytes will come: what is incomplete is an error.
    pub(super) fn next_of_rest(&mut self) -> Option<Result<Value, Malformed>> {
        self.next().or_else(|| {
            let inside = matches!(self.place, Place::Value { .. } | Place::String { .. });
            inside.then(|| Err(self.give_up_line(Malformed::CutShort)))
        })
    }

    fn begin(&mut self) {
        self.start = self.scanned - 1;
        self.line = self.start;
        self.checked = 0;
        self.place = Place::Value { depth: 1 };
    }

    /// The value that ends here.
    fn take_value(&mut self) -> Result<Value, Malformed> {
        match serde_json::from_slice(&self.bytes[self.start..self.scanned]) {
            Ok(value) => {
                self.start = self.scanned;
                self.place = Place::Between;
                Ok(value)
            }
            Err(error) => Err(self.give_up_line(Malformed::Syntax(error))),
        }
    }

    /// At the end of a line within a value: an error if the value cannot go on.
    fn look_at_line(&mut self) -> Option<Malformed> {
        let line = &self.bytes[self.line..self.scanned];
        let continued = self.line != self.start;
        self.line = self.scanned;
        if continued && line.trim_ascii_start().starts_with(b"{") {
            let alone: Result<Value, _> = serde_json::from_slice(line);
            if alone.is_ok_and(|value| is_request(&value)) {
                return Some(Malformed::CutShort);
            }
        }
        // When the value has doubled, so that the work stays in proportion to the input.
        let length = self.scanned - self.start;
        if length < 2 * self.checked {
            return None;
        }
        self.checked = length;
        let parsed: Result<IgnoredAny, _> =
            serde_json::from_slice(&self.bytes[self.start..self.scanned]);
        parsed.err().filter(|error| !error.is_eof()).map(Malformed::Syntax)
    }

    /// What a parser says of the value up to here.
    fn syntax_error(&self) -> Malformed {
        let parsed: Result<Value, _> =
            serde_json::from_slice(&self.bytes[self.start..self.scanned]);
        parsed.err().map_or(Malformed::CutShort, Malformed::Syntax)
    }

    /// Gives up the first line of the value, and returns `error`, which it is answered with. The
    /// lines after it are read again.
    fn give_up_line(&mut self, error: Malformed) -> Malformed {
        let read = &self.bytes[self.start..self.scanned];
        match read.iter().position(|&byte| byte == b'\n') {
            Some(length) => {
                self.start += length + 1;
                self.scanned = self.start;
                self.place = Place::Between;
            }
            None => self.skip_line(),
        }
        error
    }

    /// Gives up all that was read, and what is left of the line.
    fn skip_line(&mut self) {
        self.start = self.scanned;
        let ended = self.bytes[..self.scanned].last() == Some(&b'\n');
        self.place = if ended { Place::Between } else { Place::Skipping };
    }
}

#[cfg(test)]
mod tests;
