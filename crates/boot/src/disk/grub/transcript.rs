//! What a configuration says, and what the user is told of it.

/// Bytes and warnings that are kept.
const MAX_SAID: usize = 64 << 10;
const MAX_WARNINGS: usize = 16;
/// Characters of a word in a warning.
const MAX_WORD: usize = 80;

/// What a configuration says, and what the user is told of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Transcript {
    /// What it echoes.
    pub(super) said: String,
    /// What was passed over: a line each.
    pub(super) warnings: Vec<String>,
}

impl Transcript {
    pub(super) fn say(&mut self, text: &str) {
        if self.said.len() + text.len() <= MAX_SAID {
            self.said.push_str(text);
        }
    }

    /// Tells the user once of a word that is passed over.
    pub(super) fn warn(&mut self, file: &str, line: u32, word: &str, what: &str) {
        let word: String = word.chars().take(MAX_WORD).collect();
        let warning = if word.is_empty() {
            format!("{file}, line {line}: {what}")
        } else {
            format!("{file}, line {line}: {word:?} {what}")
        };
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&warning) {
            tracing::warn!("{warning}");
            self.warnings.push(warning);
        }
    }
}
