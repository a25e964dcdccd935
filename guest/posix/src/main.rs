//! Asks a file system what POSIX says of it, and prints each answer in a line, for xtask to compare with another's.
//!
//! Usage: `guest-posix FOLDER`, an empty folder. The cases are in `cases.txt`: a call and its arguments a line,
//! one after the other, each section in a folder of its own. In a name, `@N` stands for N letters.

mod calls;

use std::process::ExitCode;

use calls::Calls;

const CASES: &str = include_str!("cases.txt");

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: guest-posix FOLDER");
        return ExitCode::FAILURE;
    };
    match run(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-posix: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &str) -> std::io::Result<()> {
    calls::no_umask();
    let top = std::fs::canonicalize(folder)?;
    let mut calls = Calls::default();
    let mut section = "";
    for line in CASES.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            calls.close_all();
            section = name;
            let own = top.join(name.replace(' ', "-"));
            std::fs::create_dir(&own)?;
            std::env::set_current_dir(own)?;
        } else if !line.is_empty() {
            let words: Vec<String> = line.split(' ').map(expand).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let outcome = calls.perform(&words);
            println!("{section}: {line}: {}", outcome.unwrap_or_else(calls::error_name));
        }
    }
    Ok(())
}

/// A word with letters in place of each `@N`.
fn expand(word: &str) -> String {
    let mut parts = word.split('@');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        whole += &"n".repeat(part[..end].parse().unwrap_or(0));
        whole += &part[end..];
    }
    whole
}
