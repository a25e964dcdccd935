//! Linux's own SGX selftests, built unmodified from Debian's packages of the kernel's source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::Archive;
use crate::console::Transcript;
use crate::{linux_source, process, repository};

/// The 16 tests in the order in which the harness runs them.
pub(crate) const TESTS: [&str; 16] = [
    "unclobbered_vdso",
    "unclobbered_vdso_oversubscribed",
    "unclobbered_vdso_oversubscribed_remove",
    "clobbered_vdso",
    "clobbered_vdso_and_user_function",
    "tcs_entry",
    "pte_permissions",
    "tcs_permissions",
    "epcm_permissions",
    "augment",
    "augment_via_eaccept",
    "tcs_create",
    "remove_added_page_no_eaccept",
    "remove_added_page_invalid_access",
    "remove_added_page_invalid_access_after_eaccept",
    "remove_untouched_page",
];

/// The two files that the guest needs.
pub(crate) struct Built {
    pub(crate) program: PathBuf,
    pub(crate) enclave: PathBuf,
}

/// A version of the selftests and what its Makefile says.
struct Version {
    name: &'static str,
    enclave_flags: &'static [&'static str],
    /// The harness takes no names of tests on its command line: `guest/selftests/bind.c` is linked in.
    binding: bool,
}

const LINUX_6_1: Version = Version {
    name: "6.1",
    enclave_flags: &["-static", "-nostdlib", "-nostartfiles", "-fPIC"],
    binding: true,
};

const LINUX_6_12: Version = Version {
    name: "6.12",
    enclave_flags: &["-static-pie", "-nostdlib", "-ffreestanding", "-fPIE"],
    binding: false,
};

/// Those of the stock kernel.
///
/// # Errors
/// Packages that cannot be fetched; gcc's own.
pub(crate) fn build(archive: &Archive) -> Result<Built> {
    LINUX_6_1.build(archive)
}

/// Those of Linux 6.12, whose harness runs the tests that `-t NAME` names, or all but `-T NAME`.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_newer(archive: &Archive) -> Result<Built> {
    LINUX_6_12.build(archive)
}

impl Version {
    fn build(&self, archive: &Archive) -> Result<Built> {
        let directory = repository::cache().join("selftests").join(self.name);
        let built =
            Built { program: directory.join("test_sgx"), enclave: directory.join("test_encl.elf") };
        let binding = repository::root().join("guest/selftests/bind.c");
        if is_newer(&built.enclave, &binding) && is_newer(&built.program, &binding) {
            return Ok(built);
        }
        let source = linux_source::unpacked(archive, self.name)?;
        let library = archive.unpacked("libssl-dev")?;
        process::step(&format!("Building the SGX selftests of Linux {}", self.name));
        let start = Instant::now();
        fs::create_dir_all(&directory)?;
        let sgx = source.join("tools/testing/selftests/sgx");
        let include = library.join("usr/include");
        let archives = library.join("usr/lib/x86_64-linux-gnu");

        // The flags are those of the selftests' own Makefile, with -static added to
        // the program's; the guest has no shared libraries.
        let mut gcc = gcc(&sgx, &source);
        gcc.args(["-g", "-fPIC", "-z", "noexecstack", "-static"]);
        gcc.arg("-I").arg(&include).arg("-I").arg(include.join("x86_64-linux-gnu"));
        gcc.arg("-o").arg(&built.program);
        gcc.args(["main.c", "load.c", "sigstruct.c", "call.S", "sign_key.S"]);
        if self.binding {
            gcc.arg("-Wl,--wrap=fork").arg(&binding);
        }
        process::capture(gcc.arg("-L").arg(&archives).arg("-lcrypto"))?;

        let mut gcc = self::gcc(&sgx, &source);
        gcc.args(self.enclave_flags).args(["-fno-stack-protector", "-mrdrnd"]);
        gcc.args(["test_encl.c", "test_encl_bootstrap.S", "-o"]).arg(&built.enclave);
        process::capture(gcc.arg("-Wl,-T,test_encl.lds,--build-id=none"))?;
        process::done(start);
        Ok(built)
    }
}

fn gcc(sgx: &Path, source: &Path) -> Command {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(sgx).args(["-Wall", "-Werror", "-I"]).arg(source.join("tools/include"));
    gcc
}

/// True if the first file exists and is younger than the second.
fn is_newer(first: &Path, second: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    matches!((time(first), time(second)), (Ok(first), Ok(second)) if first > second)
}

/// The argument that makes `/bin/test_sgx` bind some tests to the first CPU: their numbers.
///
/// # Errors
/// A name that is not a test's.
pub(crate) fn binding(names: &[&str]) -> Result<String> {
    let mut numbers = Vec::new();
    for name in names {
        match TESTS.iter().position(|test| test == name) {
            Some(index) => numbers.push((index + 1).to_string()),
            None => bail!("Linux's SGX selftests have no test {name}"),
        }
    }
    Ok(numbers.join("+"))
}

/// How one selftest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `ok`.
    Passed,
    /// `not ok`.
    Failed,
    /// `ok ... # SKIP`.
    Skipped,
    /// No line of it.
    Missing,
}

/// Reads the harness's TAP lines.
///
/// # Errors
/// The plan names another number of tests than [`TESTS`].
pub(crate) fn parse(lines: &[String]) -> Result<Vec<(&'static str, Verdict)>> {
    let plan = lines.iter().find(|line| line.starts_with("1.."));
    let plan = plan.context("the selftests printed no plan")?;
    if plan.trim() != format!("1..{}", TESTS.len()) {
        bail!("the selftests' plan is {plan}, not 1..{}", TESTS.len());
    }
    let verdict = |number: usize| {
        let starts = |line: &str, prefix: &str| {
            line.strip_prefix(prefix)
                .and_then(|rest| rest.split_whitespace().next())
                .is_some_and(|word| word == number.to_string())
        };
        for line in lines {
            if starts(line, "not ok ") {
                return Verdict::Failed;
            }
            if starts(line, "ok ") {
                return if line.contains("# SKIP") { Verdict::Skipped } else { Verdict::Passed };
            }
        }
        Verdict::Missing
    };
    Ok(TESTS.iter().enumerate().map(|(index, name)| (*name, verdict(index + 1))).collect())
}

/// Looks at every verdict.
///
/// # Errors
/// The tests that did not pass.
pub(crate) fn check_passed(verdicts: &[(&str, Verdict)], transcript: &Transcript) -> Result<()> {
    let failed: Vec<_> =
        verdicts.iter().filter(|(_, verdict)| *verdict != Verdict::Passed).collect();
    ensure!(failed.is_empty(), "{failed:?}; last lines:\n{}", transcript.tail());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{TESTS, Verdict, binding, parse};

    #[test]
    fn verdicts_come_from_the_tap_lines_by_number() {
        let lines = [
            "TAP version 13",
            "1..16",
            "# Starting 16 tests from 1 test cases.",
            "ok 1 enclave.unclobbered_vdso",
            "ok 2 # SKIP unknown",
            "not ok 12 enclave.tcs_create",
        ];

        let verdicts = parse(&lines.map(str::to_owned)).unwrap();

        assert_eq!(verdicts[0], ("unclobbered_vdso", Verdict::Passed));
        assert_eq!(verdicts[1].1, Verdict::Skipped);
        assert_eq!(verdicts[2].1, Verdict::Missing);
        assert_eq!(verdicts[11], ("tcs_create", Verdict::Failed));
    }

    #[test]
    fn a_binding_is_the_numbers_of_the_tests() {
        assert_eq!(binding(&[TESTS[0], "tcs_entry"]).unwrap(), "1+6");
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(binding(&["no_such_test"]).is_err());
    }
}
