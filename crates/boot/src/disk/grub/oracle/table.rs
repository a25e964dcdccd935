//! The oracle's table: scripts, and what GNU GRUB 2.06 says and boots. `cargo xtask grub-oracle`
//! makes it and compiles this file too.

/// Begins a case.
pub(super) const CASE: &str = "=== ";
/// Is between a script and what comes of it.
pub(super) const OUTCOME: &str = "---";

/// A script and what comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) script: String,
    /// What it echoes after an at sign, then `#BOOT`, command line, size and hash of the initial
    /// RAM disk; `#PROMPT` where nothing is booted.
    pub(super) outcome: Vec<String>,
}

/// Reads a table.
pub(super) fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut in_script = false;
    // Scripts may have carriage returns.
    for line in text.split('\n') {
        if let Some(name) = line.strip_prefix(CASE) {
            let name = name.to_owned();
            cases.push(Case { name, script: String::new(), outcome: Vec::new() });
            in_script = true;
        } else if line == OUTCOME {
            in_script = false;
        } else if let Some(case) = cases.last_mut() {
            if in_script {
                case.script.push_str(line);
                case.script.push('\n');
            } else if !line.is_empty() {
                case.outcome.push(line.to_owned());
            }
        }
    }
    cases
}
