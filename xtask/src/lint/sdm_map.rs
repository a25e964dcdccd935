//! The rules over the maps of the SDM: each subject of a map, a leaf of the SGX model or a reason of VM
//! exits, has its conditions there, in order, and each condition names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::rules_table::{self, Document};

/// A map of the SDM, and what has to be in it.
struct Map {
    document: Document,
    /// What a section, or the first words of a condition up to a comma, has to name.
    subjects: fn(&Path) -> Result<BTreeSet<String>>,
}

/// The maps.
const MAPS: [Map; 2] = [
    Map {
        document: Document { path: "docs/sdm-map.md", cells: 4, tests: "crates/sgx/tests/model" },
        subjects: leaves,
    },
    Map {
        document: Document { path: "docs/vmx-map.md", cells: 4, tests: "crates/cpu/src/vmx/tests" },
        subjects: exit_reasons,
    },
];

/// Where the leaves of each instruction are.
const LEAVES: [&str; 3] = ["encls", "enclu", "enclv"];
/// Where the reasons of VM exits are.
const EXIT_REASONS: &str = "crates/x86/src/vmx.rs";

/// Every way in which the maps break the rule.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let read = |file: &Path| fs::read_to_string(root.join(file)).ok();
    let mut broken = Vec::new();
    for Map { document, subjects } in &MAPS {
        match read(Path::new(document.path)) {
            Some(map) => broken.extend(judge(document, &map, &subjects(root)?, read)),
            None => broken.push(format!("{} is missing", document.path)),
        }
    }
    Ok(broken)
}

/// The leaves of the SGX model.
fn leaves(root: &Path) -> Result<BTreeSet<String>> {
    let mut leaves = BTreeSet::new();
    for instruction in LEAVES {
        let mut files = vec![root.join(format!("crates/sgx/src/{instruction}.rs"))];
        super::sources(&root.join("crates/sgx/src").join(instruction), &mut files)?;
        for file in files {
            leaves.extend(leaves_of(&fs::read_to_string(file).unwrap_or_default()));
        }
    }
    Ok(leaves)
}

/// The reasons that VM exits of the processor can have.
fn exit_reasons(root: &Path) -> Result<BTreeSet<String>> {
    Ok(reasons_of(&fs::read_to_string(root.join(EXIT_REASONS))?))
}

/// The numbers of an enumeration of exit reasons.
fn reasons_of(text: &str) -> BTreeSet<String> {
    let variants = text.lines().skip_while(|line| !line.starts_with("pub enum ExitReason"));
    let numbers = variants.take_while(|line| *line != "}").filter_map(|line| {
        let (_, number) = line.trim().trim_end_matches(',').split_once(" = ")?;
        Some(format!("exit {number}"))
    });
    numbers.collect()
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

/// A map against its subjects and against the tests, which `read` finds.
fn judge(
    document: &Document,
    map: &str,
    subjects: &BTreeSet<String>,
    read: impl Fn(&Path) -> Option<String>,
) -> Vec<String> {
    let sections = rules_table::sections(map);
    let unmapped =
        subjects.iter().filter(|subject| !sections.iter().any(|section| section.is_about(subject)));
    let mut broken: Vec<String> = unmapped
        .map(|subject| format!("{}: no section or condition for {subject}", document.path))
        .collect();
    broken.extend(document.judge(&sections, read));
    broken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{MAPS, judge, leaves_of, reasons_of};

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

        let map = format!("### ELDU/ELDB\n\n{row}");
        let broken = judge(&MAPS[0].document, &map, &leaves, read);

        assert_eq!(broken, ["docs/sdm-map.md: no section or condition for EADD"]);
    }

    #[test]
    fn exit_reasons_are_known_by_their_numbers_and_named_in_conditions() {
        let text = "pub enum ExitReason {\n    Init = 3,\n    Hlt = 12,\n}\nconst X: u8 = 4;\n";
        let reasons = reasons_of(text);
        assert_eq!(reasons, ["exit 12", "exit 3"].map(str::to_owned).into());

        let map = "### Signals\n\n| # | condition | outcome | test |\n|---|---|---|---|\n\
                   | 1 | exit 3, INIT | as a trap | `window::it_exits` |\n";
        let read = |_: &std::path::Path| Some("#[test]\nfn it_exits() {}\n".to_owned());

        let broken = judge(&MAPS[1].document, map, &reasons, read);

        assert_eq!(broken, ["docs/vmx-map.md: no section or condition for exit 12"]);
    }
}
