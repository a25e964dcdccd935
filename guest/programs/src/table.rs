//! The programs.

use crate::inputs::{BLOB, LINES, TEXT, TREE, WORDS};

/// A program to run.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) command: &'static [&'static str],
    /// The file that is its standard input.
    pub(crate) input: Option<&'static str>,
    pub(crate) figure: Figure,
}

/// What is compared.
#[derive(Clone, Copy)]
pub(crate) enum Figure {
    /// The time to its end, with what it made: a file, else its standard output.
    Elapsed { made: Option<&'static str> },
    /// The rate that it measured itself.
    Rate,
}

const fn program(name: &'static str, command: &'static [&'static str]) -> Program {
    Program { name, command, input: None, figure: Figure::Elapsed { made: None } }
}

const fn filter(
    name: &'static str,
    command: &'static [&'static str],
    input: &'static str,
) -> Program {
    Program { input: Some(input), ..program(name, command) }
}

/// OpenSSL's own measurement of an algorithm, of a second, on 16 KiB at a time.
macro_rules! speed {
    ($name:literal, $algorithm:literal) => {
        Program {
            figure: Figure::Rate,
            ..program(
                $name,
                &[
                    "openssl", "speed", "-mr", "-elapsed", "-seconds", "1", "-bytes", "16384",
                    "-evp", $algorithm,
                ],
            )
        }
    };
}

/// Of the name and the text of a key that is nobody's.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const IV: &str = "0f0e0d0c0b0a09080706050403020100";

/// All of them, in the order in which they run.
pub(crate) const PROGRAMS: [Program; 17] = [
    filter("gzip", &["gzip", "-6", "-n", "-c"], TEXT),
    filter("sort", &["sort", "--parallel=1"], LINES),
    filter("awk", &["mawk", "-f", "words.awk"], WORDS),
    filter("perl", &["perl", "words.pl"], WORDS),
    program("python3", &["python3.11", "solve.py"]),
    filter("sqlite3", &["sqlite3", "-batch"], "table.sql"),
    filter("openssl-dgst", &["openssl", "dgst", "-sha512"], BLOB),
    filter("openssl-enc", &["openssl", "enc", "-aes-256-cbc", "-K", KEY, "-iv", IV], BLOB),
    filter("sha256sum", &["sha256sum"], BLOB),
    Program {
        figure: Figure::Elapsed { made: Some("compiled.o") },
        ..program(
            "gcc-O2",
            &["x86_64-linux-gnu-gcc-12", "-O2", "-c", "compiled.c", "-o", "compiled.o"],
        )
    },
    program(
        "tar",
        &[
            "tar",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mode=a=r",
            "-cf",
            "-",
            TREE,
        ],
    ),
    program("300-forks-execs", &["dash", "forks.sh"]),
    program("shell-loop", &["dash", "loop.sh"]),
    speed!("speed-aes-gcm", "aes-256-gcm"),
    speed!("speed-sha256", "sha256"),
    speed!("speed-chacha", "chacha20-poly1305"),
    program("avx2", &["/proc/self/exe", "avx2"]),
];
