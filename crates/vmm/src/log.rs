//! The log: lines on standard error, as many as CLOISTER_LOG asks for.
//!
//! What a guest or a client does may cause a warning, and it may do so a million times a second: of
//! each kind there are a few lines, and then a number.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fmt};

use thiserror::Error;
use tracing::callsite::Identifier;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::standard::{Stderr, complain, one_line};

/// The variable that names a level.
const VARIABLE: &str = "CLOISTER_LOG";
/// Lines of one kind in a [`PERIOD`].
const LINES: u32 = 10;
/// How long lines are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// CLOISTER_LOG is not a level.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{VARIABLE}: {0:?} is not a level: write off, error, warn, info, debug or trace")]
pub struct LogError(String);

/// Logs to standard error from now on.
///
/// # Errors
///
/// [`LogError`]: then nothing is logged.
pub fn start() -> Result<(), LogError> {
    let level = match env::var_os(VARIABLE) {
        None => LevelFilter::WARN,
        Some(level) => parse(&level.to_string_lossy())?,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .fmt_fields(fields())
        .with_writer(|| Stderr)
        .with_ansi(io::stderr().is_terminal())
        // It would say so with a macro that panics where it cannot.
        .log_internal_errors(false)
        .without_time()
        .finish()
        .with(Few::default())
        .init();
    Ok(())
}

/// How the fields of a line are written.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    debug_fn(write_field).delimited(" ")
}

/// Writes a field of a line, which may quote what a disk or a client wrote.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    // Where a library's source lay when it was built.
    if field.name().starts_with("log.") {
        return Ok(());
    }
    let value = one_line(&format!("{value:?}"));
    match field.name() {
        "message" => out.write_str(&value),
        name => write!(out, "{name}={value}"),
    }
}

fn parse(level: &str) -> Result<LevelFilter, LogError> {
    match level {
        "" => Ok(LevelFilter::WARN),
        _ => level.parse().map_err(|_| LogError(level.to_owned())),
    }
}

/// Lets a few lines of each kind through. What is logged on demand, to find a fault, is not cut.
#[derive(Default)]
struct Few(Mutex<HashMap<Identifier, Kind>>);

impl<S: Subscriber> Layer<S> for Few {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(event.metadata().callsite()).or_default();
        let verdict = kind.note(Instant::now());
        drop(kinds);
        if let Verdict::Log { left_out: left_out @ 1.. } = verdict {
            complain(&format!("{left_out} lines like the next one were left out"));
        }
        verdict != Verdict::LeaveOut
    }
}

/// What became of the lines of one kind.
#[derive(Default)]
struct Kind {
    /// When counting began.
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// The line is logged, after so many that were not.
    Log {
        left_out: u64,
    },
    LeaveOut,
}

impl Kind {
    fn note(&mut self, now: Instant) -> Verdict {
        if self.since.is_none_or(|since| now.duration_since(since) >= PERIOD) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines == LINES {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        self.lines += 1;
        Verdict::Log { left_out: std::mem::take(&mut self.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn of_a_flood_ten_lines_are_logged_and_the_rest_is_counted() {
        let mut kind = Kind::default();
        let start = Instant::now();

        let flood: Vec<Verdict> = (0..1000).map(|_| kind.note(start)).collect();
        let later = kind.note(start + PERIOD);
        let after = kind.note(start + PERIOD);

        assert_eq!(flood[..10], [Verdict::Log { left_out: 0 }; 10]);
        assert_eq!(flood[10..], [Verdict::LeaveOut; 990]);
        assert_eq!(later, Verdict::Log { left_out: 990 });
        assert_eq!(after, Verdict::Log { left_out: 0 });
    }

    /// What is logged ends here.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_warning_that_quotes_a_disk_is_one_line_without_controls() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_writer({
                let lines = lines.clone();
                move || lines.clone()
            })
            .with_ansi(false)
            .without_time()
            .finish();

        tracing::subscriber::with_default(subscriber, || {
            let name = "a\u{1b}[2J\nb\u{7}.conf";
            tracing::warn!(file = name, path = %name, "{name} is left out");
        });

        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let name = r"a\u{1b}[2J\nb\u{7}.conf";
        let end = format!("{name} is left out file=\"{name}\" path={name}\n");
        assert!(text.ends_with(&end) && text.lines().count() == 1, "{text:?}");
    }

    #[test]
    fn a_level_is_one_of_six_words_and_nothing_else() {
        for (text, level) in [
            ("", LevelFilter::WARN),
            ("off", LevelFilter::OFF),
            ("error", LevelFilter::ERROR),
            ("WARN", LevelFilter::WARN),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ] {
            assert_eq!(parse(text), Ok(level), "{text}");
        }
        assert_eq!(
            parse("nonsense").unwrap_err().to_string(),
            "CLOISTER_LOG: \"nonsense\" is not a level: write off, error, warn, info, debug or trace"
        );
    }
}
