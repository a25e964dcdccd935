//! Many small files and a compiler's work in a folder that a machine shares, beside the same on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::median;
use crate::machine::Machine;
use crate::{process, repository};

const FOLDERS: u32 = 200;
const FILES_PER_FOLDER: u32 = 100;
/// Bytes of each: those of source files are about as many.
const FILE_SIZE: usize = 2000;
/// Files of the C project, each the program that `bench --programs` compiles.
const SOURCES: u32 = 16;
const SOURCE: &str = include_str!("../../../guest/programs/inputs/compiled.c");
/// Makes and unpacks an archive of the folder `tree`, and builds what is in `project`: a line for each with its nanoseconds.
const WORK: &str = r#"set -e
timed() {
	name=$1 start=$(date +%s%N)
	shift
	"$@"
	echo "files $name $(($(date +%s%N) - start))"
}
pack() { tar -cf tree.tar tree; }
unpack() { mkdir unpacked; tar -xf tree.tar -C unpacked; }
remove() { rm -r unpacked; }
build() {
	for file in project/*.c; do gcc -O1 -c "$file" -o "${file%.c}.o"; done
	ar rc project/all.a project/*.o
}
rm -rf tree.tar unpacked project/*.o project/all.a
timed pack pack
timed unpack unpack
timed remove remove
timed build build
"#;
/// What the lines are of.
const NAMES: [(&str, &str); 4] = [
    ("pack", "tar of 20,000 files"),
    ("unpack", "its unpacking"),
    ("remove", "removing them"),
    ("build", "a C project of 16 files"),
];

/// Measures both in turn, and prints the medians.
///
/// # Errors
/// A command that fails.
pub(super) fn run(cloister: &Machine, kernel: &Path, repeat: u32) -> Result<()> {
    let Machine::Cloister(program) = cloister else { bail!("no other has exec") };
    let folder = make()?;
    let native = || {
        let mut command = Command::new("sh");
        command.arg("-c").arg(WORK);
        command
    };
    let guest = || {
        let mut command = Command::new(program);
        command.arg("exec").arg("--kernel").arg(kernel).args(["--", "sh", "-c", WORK]);
        command
    };
    let mut times: [Vec<(f64, f64)>; NAMES.len()] = Default::default();
    for _ in 0..repeat {
        let (ours, theirs) = (seconds(guest(), &folder)?, seconds(native(), &folder)?);
        for (all, pair) in times.iter_mut().zip(ours.into_iter().zip(theirs)) {
            all.push(pair);
        }
    }
    process::step(&format!("In a shared folder of cloister exec, median of {repeat}"));
    println!("    what                      cloister s  native s  to native");
    for ((_, what), all) in NAMES.iter().zip(times) {
        let (ours, theirs): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let (ours, theirs) = (median(ours), median(theirs));
        println!("    {what:<24}  {ours:10.2}  {theirs:8.2}  {:9.2}", ours / theirs);
    }
    fs::remove_dir_all(folder).context("cannot remove the files")
}

/// The files.
fn make() -> Result<PathBuf> {
    let folder = repository::cache().join("bench-files");
    let _ = fs::remove_dir_all(&folder);
    let contents: Vec<u8> = (0..FILE_SIZE).map(|at| b' ' + (at * at % 95) as u8).collect();
    for part in 0..FOLDERS {
        let part = folder.join(format!("tree/{part}"));
        fs::create_dir_all(&part)?;
        for file in 0..FILES_PER_FOLDER {
            fs::write(part.join(format!("{file}.txt")), &contents)?;
        }
    }
    let project = folder.join("project");
    fs::create_dir_all(&project)?;
    for file in 0..SOURCES {
        fs::write(project.join(format!("part{file}.c")), SOURCE)?;
    }
    Ok(folder)
}

/// Seconds of each piece of work.
fn seconds(mut command: Command, folder: &Path) -> Result<Vec<f64>> {
    let printed = process::capture(command.current_dir(folder))?;
    let times: Vec<f64> = NAMES.iter().filter_map(|(name, _)| parse(&printed, name)).collect();
    ensure!(times.len() == NAMES.len(), "not all was measured: {printed}");
    Ok(times)
}

/// `files NAME NANOSECONDS`.
fn parse(printed: &str, name: &str) -> Option<f64> {
    let value = printed.lines().find_map(|line| line.strip_prefix("files ")?.strip_prefix(name))?;
    let nanoseconds: f64 = value.trim().parse().ok()?;
    Some(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_time_is_read_by_its_name() {
        let printed = "files pack 1500000000\nfiles unpack 3\n";

        assert_eq!(parse(printed, "pack"), Some(1.5));
        assert_eq!(parse(printed, "build"), None);
    }
}
