//! The rule over docs/sdm-map.md: each leaf of the SGX model has its conditions there, in order, and
//! each condition names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::rules_table::{self, Document};

/// The map.
const MAP: Document =
    Document { path: "docs/sdm-map.md", cells: 4, tests: "crates/sgx/tests/model" };

/// Where the leaves of each instruction are.
const LEAVES: [&str; 3] = ["encls", "enclu", "enclv"];

/// Every way in which the map breaks the rule.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let Ok(map) = fs::read_to_string(root.join(MAP.path)) else {
        return Ok(vec![format!("{} is missing", MAP.path)]);
    };
    let mut leaves = BTreeSet::new();
    for instruction in LEAVES {
        let mut files = vec![root.join(format!("crates/sgx/src/{instruction}.rs"))];
        super::sources(&root.join("crates/sgx/src").join(instruction), &mut files)?;
        for file in files {
            leaves.extend(leaves_of(&fs::read_to_string(file).unwrap_or_default()));
        }
    }
    let read = |file: &Path| fs::read_to_string(root.join(file)).ok();
    Ok(judge(&map, &leaves, read))
}

/// The leaves that a source file announces: by the constant of a leaf number, or by its first line,
/// which names the instruction's leaf in brackets.
fn leaves_of(text: &str) -> Vec<String> {
    let constants = text.lines().filter_map(|line| {
        let (name, value) = line.trim().strip_prefix("pub const E")?.split_once(": u32 = ")?;
        value.starts_with("0x").then(|| format!("E{name}"))
    });
    let first = text.lines().next().filter(|line| line.starts_with("//!")).unwrap_or_default();
    let titles = first.split("ENCL").skip(1).filter_map(|rest| {
        let (_, rest) = rest.split_once("\\[")?;
        Some(rest.split_once("\\]")?.0.to_owned())
    });
    constants.chain(titles).collect()
}

/// The map against the model's leaves and against the tests, which `read` finds.
fn judge(
    map: &str,
    leaves: &BTreeSet<String>,
    read: impl Fn(&Path) -> Option<String>,
) -> Vec<String> {
    let sections = rules_table::sections(map);
    let unmapped = leaves.iter().filter(|&leaf| {
        !sections.iter().any(|section| section.title.split('/').any(|name| name == leaf))
    });
    let mut broken: Vec<String> =
        unmapped.map(|leaf| format!("{}: no section for {leaf}", MAP.path)).collect();
    broken.extend(MAP.judge(&sections, read));
    broken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{judge, leaves_of};

    #[test]
    fn a_leaf_is_known_by_its_number_and_by_its_files_first_line() {
        let numbers = "pub mod leaf {\n    /// EADD.\n    pub const EADD: u32 = 0x01;\n\
                       pub const EXINFO_SIZE: usize = 16;\n}";
        let file = "//! ENCLS\\[ELDB\\] and ENCLS\\[ELDU\\] (SDM Vol. 3D): load a page.\n";

        assert_eq!(leaves_of(numbers), ["EADD"]);
        assert_eq!(leaves_of(file), ["ELDB", "ELDU"]);
        assert!(leaves_of("//! Operands of the leaves.\n").is_empty());
    }

    #[test]
    fn a_leaf_without_a_section_is_named() {
        let leaves = BTreeSet::from(["EADD".to_owned(), "ELDB".to_owned()]);
        let row = "| # | condition | outcome | test |\n|---|---|---|---|\n\
                   | 1 | x | #GP(0) | `build::it_faults` |\n";
        let read = |_: &std::path::Path| Some("#[test]\nfn it_faults() {}\n".to_owned());

        let broken = judge(&format!("### ELDU/ELDB\n\n{row}"), &leaves, read);

        assert_eq!(broken, ["docs/sdm-map.md: no section for EADD"]);
    }
}
