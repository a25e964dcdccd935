//! `cloister-manual DIR`: writes the man pages and shell completions of the `cloister` command, from the same
//! source as its options.
//!
//! A program of its own, so that what makes them is no part of the command.

#![expect(clippy::print_stderr, reason = "a command-line program")]
#![cfg_attr(not(test), warn(unused_crate_dependencies))]

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::CommandFactory as _;
use clap_complete::Shell;
use cloister_vmm::cli::Cli;

/// The shells, each with a folder for its file.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("usage: cloister-manual DIR");
        return ExitCode::FAILURE;
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloister-manual: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes `man/*.1`, and a file for each shell in a folder of its name.
fn write(folder: &Path) -> io::Result<()> {
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    // The pages say which version they are of, and nothing of who built it.
    let pages = Cli::command().long_version(None).disable_help_subcommand(true);
    clap_mangen::generate_to(pages, &man)?;
    for (shell, name) in SHELLS {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        clap_complete::generate_to(shell, &mut Cli::command(), "cloister", &folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_each_shell_knows_them() {
        let folder = env::temp_dir().join(format!("cloister-manual-{}", std::process::id()));

        write(&folder).unwrap();

        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let exec = read("man/cloister-exec.1");
        assert!(read("man/cloister.1").contains("cloister\\-exec(1)"));
        assert!(exec.contains("\\-\\-timeout") && exec.contains("COMMAND"));
        for file in ["bash/cloister.bash", "zsh/_cloister", "fish/cloister.fish"] {
            assert!(read(file).contains("daemonize"), "{file}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
