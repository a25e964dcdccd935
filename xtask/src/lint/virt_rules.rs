//! The rule over docs/virt-rules.md: each rule of SGX virtualization names tests that exist.

use std::fs;
use std::path::Path;

use super::rules_table::{Document, sections};

/// The rules: number, rule, Linux's function, ours, tests.
const RULES: Document =
    Document { path: "docs/virt-rules.md", cells: 5, tests: "crates/virt/tests/virt" };

/// Every way in which the document breaks the rule.
pub(super) fn check(root: &Path) -> Vec<String> {
    let read = |file: &Path| fs::read_to_string(root.join(file)).ok();
    match read(Path::new(RULES.path)) {
        Some(rules) => RULES.judge(&sections(&rules), read),
        None => vec![format!("{} is missing", RULES.path)],
    }
}
