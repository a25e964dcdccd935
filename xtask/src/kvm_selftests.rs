//! Linux's selftests of KVM, those of 6.1's `tools/testing/selftests/kvm` that are for x86 alone and some
//! of the others, built unmodified from Debian's package of the kernel's source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::apt::Archive;
use crate::{cpio, linux_source, process, repository};

const VERSION: &str = "6.1";
/// The folder of the programs that are for x86, in the Makefile's lists.
const X86: &str = "x86_64/";
/// The Makefile's lists of them.
const LISTS: [&str; 2] = ["TEST_GEN_PROGS_x86_64", "TEST_GEN_PROGS_EXTENDED_x86_64"];
/// Programs for all architectures that test rather than measure, within a minute.
const GENERAL: [&str; 4] = [
    "kvm_binary_stats_test",
    "kvm_page_table_test",
    "set_memory_region_test",
    "system_counter_offset_test",
];
/// What the Makefile is told: the guest has no libraries, and debug information would only fill its memory.
/// The kernel's headers are the system's.
const OPTIONS: [&str; 2] = ["INSTALL_HDR_PATH=/usr", "LDFLAGS=-pthread -no-pie -static -s"];
/// Marks the folder of programs when all are there: what they were made by.
const COMPLETE: &str = ".complete";

/// The programs and where they are.
pub(crate) struct Programs {
    files: Vec<PathBuf>,
}

impl Programs {
    /// Fetches and compiles what is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched; make's own; a Makefile that is not the known one.
    pub(crate) fn build(archive: &Archive) -> Result<Self> {
        let source = linux_source::unpacked(archive, VERSION)?.join("tools/testing/selftests/kvm");
        let names = names(&fs::read_to_string(source.join("Makefile"))?);
        ensure!(!names.is_empty(), "the KVM selftests' Makefile has no list {LISTS:?}");
        let folder = repository::cache().join("kvm-selftests");
        let files: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        let complete = folder.join(COMPLETE);
        let recipe = format!("{names:?} {OPTIONS:?}");
        if !fs::read_to_string(&complete).is_ok_and(|made| made == recipe) {
            process::step(&format!("Building the KVM selftests of Linux {VERSION}"));
            let start = Instant::now();
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            let mut make = Command::new("make");
            make.arg("-C").arg(&source).arg(format!("OUTPUT={}", folder.display()));
            process::capture(make.args(OPTIONS).args(&files))?;
            fs::write(complete, recipe)?;
            process::done(start);
        }
        Ok(Self { files })
    }

    /// The names by which the guest has them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.file_name()?.to_str())
    }

    /// Adds them to an initramfs, in `/bin`.
    ///
    /// # Errors
    /// A program that cannot be read.
    pub(crate) fn add(&self, root: &mut cpio::Archive) -> Result<()> {
        for file in &self.files {
            let name = Path::new(file).file_name().and_then(|name| name.to_str());
            let name = name.context("a program without a name")?;
            root.file(&format!("bin/{name}"), 0o755, process::read(file)?);
        }
        Ok(())
    }
}

/// The Makefile has a line for each program: `LIST += NAME`, the first with `=`.
fn names(makefile: &str) -> Vec<String> {
    let x86 = makefile.lines().filter_map(|line| {
        let (list, name) = line.split_once("= ")?;
        let list = list.trim_end_matches('+').trim_end();
        (LISTS.contains(&list) && name.starts_with(X86)).then(|| name.to_owned())
    });
    let mut names: Vec<String> = x86.collect();
    if !names.is_empty() {
        names.extend(GENERAL.map(str::to_owned));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{GENERAL, names};

    #[test]
    fn programs_of_x86_are_read_from_the_makefile_and_others_are_known() {
        let makefile = "TEST_GEN_PROGS_x86_64 = x86_64/cpuid_test\n\
                        TEST_GEN_PROGS_x86_64 += x86_64/smm_test\n\
                        TEST_GEN_PROGS_x86_64 += dirty_log_perf_test\n\
                        TEST_GEN_PROGS_EXTENDED_x86_64 += x86_64/nx_huge_pages_test\n\
                        TEST_GEN_PROGS_aarch64 += aarch64/psci_test\n";

        let names = names(makefile);

        let x86 = ["x86_64/cpuid_test", "x86_64/smm_test", "x86_64/nx_huge_pages_test"];
        assert_eq!(names[..3], x86);
        assert_eq!(names[3..], GENERAL);
    }

    #[test]
    fn a_makefile_without_the_lists_has_no_programs() {
        assert!(names("all:\n").is_empty());
    }
}
