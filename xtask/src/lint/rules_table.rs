//! Documents that are tables of rules: every row is numbered, complete, and names tests that exist.

use std::path::{Path, PathBuf};

/// Such a document.
pub(super) struct Document {
    /// Its path.
    pub(super) path: &'static str,
    /// Cells of a row; the first is its number, the last names the tests.
    pub(super) cells: usize,
    /// Where tests are whose crate is not named.
    pub(super) tests: &'static str,
}

/// A `###` section of a document.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Section<'a> {
    title: &'a str,
    /// Line of the heading, from 1.
    line: usize,
    rows: Vec<Row<'a>>,
}

impl Section<'_> {
    /// Whether its title, or what one of its rows has between the number and a comma, is `subject`.
    pub(super) fn is_about(&self, subject: &str) -> bool {
        let mut rows = self.rows.iter().filter_map(|row| row.cells.get(1)?.split(',').next());
        self.title.split('/').any(|name| name == subject) || rows.any(|name| name == subject)
    }
}

/// A row of a section's table.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Row<'a> {
    /// Line of the document, from 1.
    line: usize,
    cells: Vec<&'a str>,
}

/// The sections of a document.
pub(super) fn sections(document: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (number, line) in document.lines().enumerate() {
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

impl Document {
    /// Every way in which the sections break the rule, against the tests, which `read` finds.
    pub(super) fn judge(
        &self,
        sections: &[Section<'_>],
        read: impl Fn(&Path) -> Option<String>,
    ) -> Vec<String> {
        let mut broken = Vec::new();
        for section in sections {
            let Section { title, line, ref rows } = *section;
            if rows.is_empty() {
                broken.push(format!("{}:{line}: {title} has no conditions", self.path));
            }
            for (row, number) in rows.iter().zip(1usize..) {
                let at = format!("{}:{}: {title} {number}", self.path, row.line);
                broken
                    .extend(self.judge_row(row, number, &read).map(|what| format!("{at}: {what}")));
            }
        }
        broken
    }

    fn judge_row(
        &self,
        row: &Row<'_>,
        number: usize,
        read: impl Fn(&Path) -> Option<String>,
    ) -> impl Iterator<Item = String> {
        let mut broken = Vec::new();
        match row.cells[..] {
            [shown, ref middle @ .., tests] if row.cells.len() == self.cells => {
                if shown != number.to_string() {
                    broken.push(format!("is numbered {shown}"));
                }
                if let Some(empty) = middle.iter().position(|cell| cell.is_empty()) {
                    broken.push(format!("cell {} is empty", empty + 2));
                }
                let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
                if tests.is_empty() {
                    broken.push("no test".to_owned());
                }
                let missing = tests.into_iter().filter(|test| !exists(test, self.tests, &read));
                broken.extend(missing.map(|test| format!("no test {test}")));
            }
            _ => broken.push(format!("not {} cells", self.cells)),
        }
        broken.into_iter()
    }
}

/// Whether `module::function`, of the tests in `folder` or of the crate before a colon, is a test.
fn exists(test: &str, folder: &str, read: impl Fn(&Path) -> Option<String>) -> bool {
    let (folders, path) = match test.split_once(": ") {
        None => (vec![PathBuf::from(folder)], test),
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
    use std::path::Path;

    use super::{Document, exists, has_test, sections};

    const HEAD: &str = "| # | condition | outcome | test |\n|---|---|---|---|\n";
    const TESTS: &str = "#[test]\nfn it_faults() {\n}\n\nfn not_a_test() {\n}\n";
    const FOLDER: &str = "crates/sgx/tests/model";

    fn read(file: &Path) -> Option<String> {
        let known = ["crates/sgx/tests/model/build/eadd.rs", "crates/cpu/tests/system/main.rs"];
        known.iter().any(|path| file == Path::new(path)).then(|| TESTS.to_owned())
    }

    fn broken(text: &str) -> Vec<String> {
        let document = Document { path: "map.md", cells: 4, tests: FOLDER };
        document.judge(&sections(&format!("## ENCLS\n\n{text}")), read)
    }

    #[test]
    fn numbered_and_tested_conditions_pass() {
        let rows = "| 1 | unaligned | #GP(0) | `build::eadd::it_faults` |\n\
                    | 2 | order: 1 first | the first | `build::eadd::it_faults`, `cpu: system::it_faults` |\n";

        assert!(broken(&format!("### EADD\n\n{HEAD}{rows}")).is_empty());
    }

    #[test]
    fn a_section_without_conditions_is_named() {
        let found = broken(&format!("### EADD\n\n{HEAD}\n### AEX\n"));

        assert_eq!(found, ["map.md:3: EADD has no conditions", "map.md:8: AEX has no conditions"]);
    }

    #[test]
    fn a_gap_in_the_numbers_is_found() {
        let rows = "| 1 | x | #GP(0) | `build::eadd::it_faults` |\n\
                    | 3 | y | #GP(0) | `build::eadd::it_faults` |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            ["map.md:8: EADD 2: is numbered 3"]
        );
    }

    #[test]
    fn a_condition_without_an_outcome_or_a_test_is_found() {
        let rows =
            "| 1 | x | | `build::eadd::it_faults` |\n| 2 | y | #GP(0) | some day |\n| 3 | z |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            [
                "map.md:7: EADD 1: cell 3 is empty",
                "map.md:8: EADD 2: no test",
                "map.md:9: EADD 3: not 4 cells"
            ]
        );
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let rows = "| 1 | x | #GP(0) | `build::eadd::it_faults`, `build::eadd::not_a_test` |\n";

        assert_eq!(
            broken(&format!("### EADD\n\n{HEAD}{rows}")),
            ["map.md:7: EADD 1: no test build::eadd::not_a_test"]
        );
    }

    #[test]
    fn tests_of_other_crates_are_found_where_they_are() {
        assert!(exists("cloister-cpu: system::it_faults", FOLDER, read));
        assert!(exists("cpu: system::tests::it_faults", FOLDER, read));
        assert!(!exists("cloister-virt: system::it_faults", FOLDER, read));
        assert!(!exists("cloister-cpu: it_faults", FOLDER, read));
    }

    #[test]
    fn only_functions_marked_as_tests_count() {
        assert!(has_test("#[test]\n#[should_panic]\nfn a() {}\n", "a"));
        assert!(!has_test("#[test]\nfn a_longer_name() {}\nfn a() {}\n", "a"));
        assert!(!has_test("fn a() {}\n", "a"));
    }
}
