//! Linux's selftests of the x86 architecture, all of 6.1's `tools/testing/selftests/x86`, built
//! unmodified from Debian's package of the kernel's source.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::apt::Archive;
use crate::sysroot::{Bits, Sysroot};
use crate::{cpio, linux_source, process, repository};

const VERSION: &str = "6.1";
/// Marks the folder of programs when all are there: what they were made by.
const COMPLETE: &str = ".complete";
/// The Makefile's options; both kinds of programs can be built.
const FLAGS: [&str; 7] =
    ["-O2", "-g", "-std=gnu99", "-pthread", "-no-pie", "-DCAN_BUILD_32", "-DCAN_BUILD_64"];

/// The Makefile's lists, each with the kinds of programs that it is for.
const LISTS: [(&str, &[Bits]); 4] = [
    ("TARGETS_C_BOTHBITS", &[Bits::B32, Bits::B64]),
    ("TARGETS_C_32BIT_ONLY", &[Bits::B32]),
    ("TARGETS_C_64BIT_ONLY", &[Bits::B64]),
    ("TARGETS_C_32BIT_NEEDED", &[Bits::B32, Bits::B64]),
];

/// A program and what else its command line has, by the Makefile's last lines.
const ADDITIONS: [(&str, &[&str]); 5] = [
    ("sysret_ss_attrs_64", &["thunks.S"]),
    ("ptrace_syscall_32", &["raw_syscall_helper_32.S"]),
    ("test_syscall_vdso_32", &["thunks_32.S"]),
    ("check_initial_reg_state_32", &["-Wl,-ereal_start", "-static"]),
    ("check_initial_reg_state_64", &["-Wl,-ereal_start", "-static"]),
];

/// The programs of one kind.
pub(crate) struct Programs {
    folder: PathBuf,
    names: Vec<String>,
}

impl Programs {
    /// Fetches and compiles what is missing.
    ///
    /// # Errors
    /// Packages that cannot be fetched; gcc's own; a Makefile that is not the known one.
    pub(crate) fn build(archive: &Archive, sysroot: &Sysroot) -> Result<Self> {
        let source = linux_source::unpacked(archive, VERSION)?.join("tools/testing/selftests/x86");
        let makefile = fs::read_to_string(source.join("Makefile"))?;
        let mut names = Vec::new();
        for (list, kinds) in LISTS {
            let programs = words(&makefile, list);
            ensure!(!programs.is_empty(), "the x86 selftests' Makefile has no list {list}");
            for program in programs {
                names.extend(kinds.iter().map(|bits| format!("{program}_{}", suffix(*bits))));
            }
        }
        names.sort();
        let folder = repository::cache().join("x86-selftests");
        let complete = folder.join(COMPLETE);
        let recipe = format!("{names:?} {FLAGS:?} {ADDITIONS:?}");
        if !fs::read_to_string(&complete).is_ok_and(|made| made == recipe) {
            process::step(&format!("Building the x86 selftests of Linux {VERSION}"));
            let start = Instant::now();
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            for name in &names {
                compile(sysroot, &source, name, &folder.join(name))?;
            }
            fs::write(complete, recipe)?;
            process::done(start);
        }
        Ok(Self { folder, names })
    }

    /// The names of those programs that a kernel runs, in order.
    pub(crate) fn names(&self, kernel: Bits) -> impl Iterator<Item = &str> {
        let runs = move |name: &&str| kernel == Bits::B64 || name.ends_with(suffix(Bits::B32));
        self.names.iter().map(String::as_str).filter(runs)
    }

    /// Adds them to an initramfs, in `/bin`.
    ///
    /// # Errors
    /// A program that cannot be read.
    pub(crate) fn add(&self, root: &mut cpio::Archive, kernel: Bits) -> Result<()> {
        for name in self.names(kernel) {
            root.file(&format!("bin/{name}"), 0o755, process::read(&self.folder.join(name))?);
        }
        Ok(())
    }
}

fn suffix(bits: Bits) -> &'static str {
    match bits {
        Bits::B32 => "32",
        Bits::B64 => "64",
    }
}

fn compile(sysroot: &Sysroot, source: &Path, name: &str, program: &Path) -> Result<()> {
    let Some((test, kind)) = name.rsplit_once('_') else {
        bail!("{name} is not a selftest's name")
    };
    let bits = if kind == suffix(Bits::B32) { Bits::B32 } else { Bits::B64 };
    let mut compiler = sysroot.compiler(bits);
    compiler.current_dir(source).args(FLAGS).arg("-o").arg(program).arg(format!("{test}.c"));
    for (_, more) in ADDITIONS.iter().filter(|(program, _)| *program == name) {
        compiler.args(*more);
    }
    compiler.args(["-lrt", "-ldl"]);
    if bits == Bits::B32 {
        compiler.arg("-lm");
    }
    process::capture(&mut compiler)?;
    Ok(())
}

/// The words of `LIST := words`, which a backslash continues on the next line.
fn words<'a>(makefile: &'a str, list: &str) -> Vec<&'a str> {
    let Some(at) = makefile.find(&format!("\n{list} := ")) else { return Vec::new() };
    let value = &makefile[at + list.len() + 5..];
    let mut words = Vec::new();
    for line in value.lines() {
        words.extend(line.trim_end_matches('\\').split_whitespace());
        if !line.ends_with('\\') {
            break;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_list_of_a_makefile_goes_on_after_a_backslash_and_ends_with_its_line() {
        let makefile = "A := x\nLIST := one two \\\n\t\tthree\nLISTS := four\n";

        assert_eq!(words(makefile, "LIST"), ["one", "two", "three"]);
        assert!(words(makefile, "OTHER").is_empty());
    }
}
