//! The rule over errors: only a front end names options. The libraries below say which setting is at
//! fault (`cloister_vmm::complaint`), and each front end has its own name for it.

use std::fs;
use std::path::Path;

/// The front ends' names of settings.
const WORDINGS: [&str; 2] = ["crates/vmm/src/cli/wording.rs", "crates/vmm/src/qemu/wording.rs"];
/// Libraries under them.
const LIBRARIES: [&str; 9] = [
    "crates/sgx",
    "crates/cpu",
    "crates/virt",
    "crates/boot",
    "crates/devices",
    "crates/epc-view",
    "crates/fs",
    "crates/attest",
    "crates/vmm",
];
/// Those of them in which any text may be shown to the user. Others have texts in other languages.
const ALL_TEXT: [&str; 4] = ["crates/devices", "crates/epc-view", "crates/attest", "crates/vmm"];
/// Code with a command line of its own, or for another program.
const FRONT_ENDS: [&str; 8] = [
    "crates/vmm/src/cli.rs",
    "crates/vmm/src/cli",
    "crates/vmm/src/qemu",
    "crates/vmm/src/epc_command",
    "crates/vmm/src/attestation",
    "crates/vmm/src/seed.rs",
    "crates/vmm/src/oci",
    "crates/vmm/src/net/passt.rs",
];

/// Options of the front ends, with their dashes.
pub(super) struct Options(Vec<String>);

impl Options {
    /// Reads the names that the front ends have for settings.
    pub(super) fn read(root: &Path) -> Self {
        let texts = WORDINGS.map(|file| fs::read_to_string(root.join(file)).unwrap_or_default());
        Self(texts.iter().flat_map(|text| named(text)).collect())
    }

    /// The rule is of no use if the names are not found.
    pub(super) fn check(&self) -> Option<String> {
        self.0.is_empty().then(|| format!("no option is named in {}", WORDINGS.join(" or ")))
    }

    /// Every line of a file's messages that names an option.
    pub(super) fn judge(&self, file: &Path, text: &str) -> Vec<String> {
        let is_library =
            LIBRARIES.iter().any(|folder| file.starts_with(Path::new(folder).join("src")));
        let is_front_end = FRONT_ENDS.iter().any(|front_end| file.starts_with(front_end));
        // Tests, and commands of a guest's boot loader, have dashes of their own.
        let is_test = file.file_stem().is_some_and(|name| name == "tests");
        if !is_library || is_front_end || is_test {
            return Vec::new();
        }
        let all_text = ALL_TEXT.iter().any(|folder| file.starts_with(folder));
        let mut in_error = false;
        let mut broken = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            in_error |= line.contains("#[error(");
            if let Some(option) = self.named_in(line).filter(|_| all_text || in_error) {
                broken.push(format!(
                    "{}:{number}: {option} is an option's name: say which setting it is",
                    file.display()
                ));
            }
            in_error &= !line.contains(")]");
        }
        broken
    }

    /// The option that a line names, outside its comments.
    fn named_in<'a>(&self, line: &'a str) -> Option<&'a str> {
        let code = line.split("//").next().unwrap_or_default();
        let mut words =
            code.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
        words.find(|word| {
            word.strip_prefix("--")
                .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
                || self.0.iter().any(|option| option == word)
        })
    }
}

/// The options among the arms of a wording's `match`. One of a single letter may be any program's.
fn named(wording: &str) -> Vec<String> {
    let arms = wording.lines().filter_map(|line| line.split_once("=> \"-"));
    let names = arms.filter_map(|(_, rest)| rest.split(['"', ' ']).next());
    names.filter(|name| name.len() > 1).map(|name| format!("-{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(file: &str, text: &str) -> usize {
        let options = Options(vec!["--memory".to_owned(), "-numa".to_owned()]);
        options.judge(Path::new(file), text).len()
    }

    #[test]
    fn options_in_messages_of_the_library_are_found() {
        let vmm = "crates/vmm/src/machine/a.rs";

        assert_eq!(judge(vmm, "#[error(\"-numa: {0}\")]\n"), 1);
        assert_eq!(judge(vmm, "let fix = \"give it more --memory\";\n"), 1);
        assert_eq!(judge(vmm, "let fix = \"write --any off\";\n"), 1);
        assert_eq!(judge("crates/boot/src/error.rs", "#[error(\n\"less --memory\"\n)]\n"), 1);
    }

    #[test]
    fn front_ends_tests_comments_and_other_languages_may_name_options() {
        for (file, text) in [
            ("crates/vmm/src/cli/values.rs", "#[error(\"--memory: {0}\")]\n"),
            ("crates/vmm/src/qemu/numa.rs", "const NUMA: &str = \"-numa\";\n"),
            ("crates/vmm/src/layout.rs", "/// As `--memory` says.\nlet a = b; // -numa\n"),
            ("crates/vmm/src/layout.rs", "#[cfg(test)]\nmod tests { let a = \"--memory\"; }\n"),
            ("crates/vmm/src/config/tests.rs", "let a = \"--memory\";\n"),
            ("crates/vmm/src/size.rs", "let a = b - numa - c; let b = \"-sgx2\";\n"),
            ("crates/boot/src/disk/grub/a.rs", "\"search --set=root\"\n"),
            ("xtask/src/a.rs", "\"--memory\"\n"),
        ] {
            assert_eq!(judge(file, text), 0, "{file}: {text}");
        }
    }

    #[test]
    fn the_names_are_those_of_the_wordings() {
        let wording = "Setting::Memory => \"-m\",\nSetting::Epc => \"-object memory-backend-epc\",\n\
                       Setting::Disk => \"--disk\",\nFix::Image => \"name one\".to_owned(),\n";

        assert_eq!(named(wording), ["-object", "--disk"]);
    }
}
