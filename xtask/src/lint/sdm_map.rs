//! The rule over docs/sdm-map.md: each leaf of the SGX model has its conditions there, in order, and
//! each condition names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The map.
const MAP: &str = "docs/sdm-map.md";

/// Where the leaves of each instruction are.
const LEAVES: [&str; 3] = ["encls", "enclu", "enclv"];

/// A `###` section of the map.
#[derive(PartialEq, Eq, Debug)]
struct Section<'a> {
    title: &'a str,
    /// Line of the heading, from 1.
    line: usize,
    rows: Vec<Row<'a>>,
}

/// A row of a section's table.
#[derive(PartialEq, Eq, Debug)]
struct Row<'a> {
    /// Line of the map, from 1.
    line: usize,
    cells: Vec<&'a str>,
}

/// Every way in which the map breaks the rule.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let Ok(map) = fs::read_to_string(root.join(MAP)) else {
        return Ok(vec![format!("{MAP} is missing")]);
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

/// The sections of the map.
fn sections(map: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (number, line) in map.lines().enumerate() {
        let number = number + 1;
        if let Some(title) = line.strip_prefix("### ") {
            sections.push(Section { title: title.trim(), line: number, rows: Vec::new() });
        } else if let (Some(section), Some(row)) = (sections.last_mut(), line.strip_prefix('|')) {
            let cells: Vec<_> =
                row.trim_end().trim_end_matches('|').split('|').map(str::trim).collect();
            let head = cells[0] == "#" || cells[0].starts_with("--");
            if !head {
                section.rows.push(Row { line: number, cells });
            }
        }
    }
    sections
}

/// The map against the model's leaves and against the tests, which `read` finds.
fn judge(
    map: &str,
    leaves: &BTreeSet<String>,
    read: impl Fn(&Path) -> Option<String>,
) -> Vec<String> {
    let sections = sections(map);
    let mut broken = Vec::new();
    for leaf in leaves {
        if !sections.iter().any(|section| section.title.split('/').any(|name| name == leaf)) {
            broken.push(format!("{MAP}: no section for {leaf}"));
        }
    }
    for section in &sections {
        if section.rows.is_empty() {
            broken.push(format!("{MAP}:{}: {} has no conditions", section.line, section.title));
        }
        for (row, number) in section.rows.iter().zip(1usize..) {
            let at = format!("{MAP}:{}: {} {number}", row.line, section.title);
            let [shown, _, outcome, tests] = row.cells[..] else {
                broken.push(format!("{at}: not four cells"));
                continue;
            };
            if shown != number.to_string() {
                broken.push(format!("{at}: is numbered {shown}"));
            }
            if outcome.is_empty() {
                broken.push(format!("{at}: no outcome"));
            }
            let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
            if tests.is_empty() {
                broken.push(format!("{at}: no test"));
            }
            for test in tests {
                if !exists(test, &read) {
                    broken.push(format!("{at}: no test {test}"));
                }
            }
        }
    }
    broken
}

/// Whether `module::function`, of the model's tests or of the crate before a colon, is a test.
fn exists(test: &str, read: impl Fn(&Path) -> Option<String>) -> bool {
    let (folders, path) = match test.split_once(": ") {
        None => (vec![PathBuf::from("crates/sgx/tests/model")], test),
        Some((name, path)) => {
            let name = name.strip_prefix("cloister-").unwrap_or(name);
            let package =
                if name == "xtask" { PathBuf::from(name) } else { Path::new("crates").join(name) };
            (vec![package.join("src"), package.join("tests")], path)
        }
    };
    let mut modules: Vec<&str> = path.split("::").collect();
    let Some(function) = modules.pop() else { return false };
    // A file's own tests are in a module of it.
    if modules.last() == Some(&"tests") {
        modules.pop();
    }
    folders.iter().any(|folder| {
        let base = modules.iter().fold(folder.clone(), |path, module| path.join(module));
        let places = [base.with_extension("rs"), base.join("mod.rs"), base.join("main.rs")];
        places.iter().any(|file| read(file).is_some_and(|text| has_test(&text, function)))
    })
}

/// Whether a source file has a test function of this name.
fn has_test(text: &str, function: &str) -> bool {
    let head = format!("fn {function}(");
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") || line.starts_with("//") {
            marked |= line == "#[test]";
        } else {
            if marked && line.starts_with(&head) {
                return true;
            }
            marked = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{exists, has_test, judge, leaves_of};

    const HEAD: &str = "| # | condition | outcome | test |\n|---|---|---|---|\n";
    const TESTS: &str = "#[test]\nfn it_faults() {\n}\n\nfn not_a_test() {\n}\n";

    fn read(file: &Path) -> Option<String> {
        let known = ["crates/sgx/tests/model/build/eadd.rs", "crates/cpu/tests/system/main.rs"];
        known.iter().any(|path| file == Path::new(path)).then(|| TESTS.to_owned())
    }

    fn broken(sections: &str) -> Vec<String> {
        judge(&format!("## ENCLS\n\n{sections}"), &BTreeSet::from(["EADD".to_owned()]), read)
    }

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
    fn a_leaf_with_numbered_and_tested_conditions_passes() {
        let rows = "| 1 | unaligned | #GP(0) | `build::eadd::it_faults` |\n\
                    | 2 | order: 1 first | the first | `build::eadd::it_faults`, `cpu: system::it_faults` |\n";

        assert!(broken(&format!("### ELDB/EADD\n\n{HEAD}{rows}")).is_empty());
    }

    #[test]
    fn a_leaf_without_a_section_is_named() {
        let section = format!("### EPA\n\n{HEAD}| 1 | x | #GP(0) | `build::eadd::it_faults` |\n");

        assert_eq!(broken(&section), ["docs/sdm-map.md: no section for EADD"]);
    }

    #[test]
    fn a_section_without_conditions_is_named() {
        let found = broken(&format!("### EADD\n\n{HEAD}\n### AEX\n"));

        assert_eq!(
            found,
            [
                "docs/sdm-map.md:3: EADD has no conditions",
                "docs/sdm-map.md:8: AEX has no conditions"
            ]
        );
    }

    #[test]
    fn a_gap_in_the_numbers_is_found() {
        let rows = "| 1 | x | #GP(0) | `build::eadd::it_faults` |\n\
                    | 3 | y | #GP(0) | `build::eadd::it_faults` |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            ["docs/sdm-map.md:8: EADD 2: is numbered 3"]
        );
    }

    #[test]
    fn a_condition_without_an_outcome_or_a_test_is_found() {
        let rows =
            "| 1 | x | | `build::eadd::it_faults` |\n| 2 | y | #GP(0) | some day |\n| 3 | z |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            [
                "docs/sdm-map.md:7: EADD 1: no outcome",
                "docs/sdm-map.md:8: EADD 2: no test",
                "docs/sdm-map.md:9: EADD 3: not four cells"
            ]
        );
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let rows = "| 1 | x | #GP(0) | `build::eadd::it_faults`, `build::eadd::not_a_test` |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            ["docs/sdm-map.md:7: EADD 1: no test build::eadd::not_a_test"]
        );
    }

    #[test]
    fn tests_of_other_crates_are_found_where_they_are() {
        assert!(exists("cloister-cpu: system::it_faults", read));
        assert!(exists("cpu: system::tests::it_faults", read));
        assert!(!exists("cloister-virt: system::it_faults", read));
        assert!(!exists("cloister-cpu: it_faults", read));
    }

    #[test]
    fn only_functions_marked_as_tests_count() {
        assert!(has_test("#[test]\n#[should_panic]\nfn a() {}\n", "a"));
        assert!(!has_test("#[test]\nfn a_longer_name() {}\nfn a() {}\n", "a"));
        assert!(!has_test("fn a() {}\n", "a"));
    }
}
