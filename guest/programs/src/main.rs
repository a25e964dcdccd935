//! Runs programs of Debian packages and times each by the clock of the machine it runs on.
//!
//! The same programs run in Cloister, under another emulator and on the host, so the figures compare.
//! Each prints `program NAME begins` and `program NAME ends`, then one of
//!
//! - `program NAME took NANOSECONDS ELAPSED CHECKSUM`: what to compare, what passed between the two lines
//!   before, and the SHA-256 of all that it made, which must be the same everywhere;
//! - `program NAME failed WHY`.
//!
//! An argument, the name of a part of this program, runs that part instead.

mod avx2;
mod inputs;
mod table;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use guest_sha256::Sha256;
use inputs::FOLDER;
use table::{Figure, PROGRAMS, Program};

/// Where the outputs of a program go.
const OUTPUT: &str = "output";
const ERRORS: &str = "errors";
/// What the figure of a program that measures its own rate stands for, in bytes.
const RATED: f64 = (64 << 20) as f64;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => run_all(),
        Some("avx2") => {
            println!("{}", avx2::run());
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!("there is no part {other}");
            ExitCode::FAILURE
        }
    }
}

fn run_all() -> ExitCode {
    if let Err(error) = inputs::make() {
        println!("programs: cannot make the inputs: {error}");
        return ExitCode::FAILURE;
    }
    for program in &PROGRAMS {
        let name = program.name;
        let line = match run(program) {
            Ok((figure, elapsed, checksum)) => {
                format!("took {} {} {checksum}", figure.as_nanos(), elapsed.as_nanos())
            }
            Err(error) => format!("failed {error}"),
        };
        println!("program {name} {line}");
    }
    ExitCode::SUCCESS
}

/// Prints a line, and waits until the console has taken it: the host takes the time too.
#[expect(unsafe_code, reason = "tcdrain has no safe form in std")]
fn say(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
    // SAFETY: no pointers; a descriptor that is not a terminal is an error that changes nothing.
    unsafe { libc::tcdrain(1) };
}

/// What to compare, what passed, and the checksum.
fn run(program: &Program) -> io::Result<(Duration, Duration, String)> {
    let [name, arguments @ ..] = program.command else {
        return Err(io::Error::other("no command"));
    };
    let mut command = Command::new(name);
    command.args(arguments).current_dir(FOLDER).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TMPDIR", FOLDER);
    // The same order of hashes, and the same work whether it ran before or not.
    command.env("PYTHONHASHSEED", "0").env("PYTHONDONTWRITEBYTECODE", "1");
    let path = |name: &str| format!("{FOLDER}/{name}");
    command.stdin(match program.input {
        Some(name) => File::open(path(name))?.into(),
        None => Stdio::null(),
    });
    command.stdout(File::create(path(OUTPUT))?).stderr(File::create(path(ERRORS))?);

    say(&format!("program {} begins", program.name));
    let start = Instant::now();
    let status = command.status()?;
    let elapsed = start.elapsed();
    say(&format!("program {} ends", program.name));

    if !status.success() {
        let errors = fs::read_to_string(path(ERRORS)).unwrap_or_default();
        let last = errors.lines().last().unwrap_or_default();
        return Err(io::Error::other(format!("it ended with {status}: {last}")));
    }
    match program.figure {
        Figure::Elapsed { made } => {
            let checksum = digest(&path(made.unwrap_or(OUTPUT)))?;
            Ok((elapsed, elapsed, checksum))
        }
        Figure::Rate => {
            let rate = rate(&fs::read_to_string(path(OUTPUT))?)
                .ok_or_else(|| io::Error::other("it printed no rate"))?;
            Ok((Duration::from_secs_f64(RATED / rate), elapsed, "-".to_owned()))
        }
    }
}

/// Bytes per second that `openssl speed -mr` prints: `+F:INDEX:NAME:RATE`.
fn rate(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("+F:"))?;
    line.rsplit(':').next()?.parse().ok().filter(|rate| *rate > 0.0)
}

/// SHA-256 of a file, of which there must be something.
fn digest(path: &str) -> io::Result<String> {
    let (mut file, mut hash, mut length) = (File::open(path)?, Sha256::default(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 if length == 0 => return Err(io::Error::other("it made nothing")),
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                length += n;
            }
        }
    }
    Ok(hash.finish().iter().map(|byte| format!("{byte:02x}")).collect())
}
