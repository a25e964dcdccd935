//! `cloister epc`: what it was asked for, and the ways to show it.

mod live;

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, process};

use clap::Args;
use cloister_epc_view::{
    EpcReport, HttpAddress, HttpError, HttpServer, QmpClient, QmpError, Scraped, metrics,
    metrics_response, picture, table,
};
use thiserror::Error;

use crate::register::Register;
use crate::sandbox::Sandbox;
use crate::standard::complain;
use crate::terminal::{self, SIGNALLED};

/// How often reports are shown.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a machine may take for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Options of `cloister epc`.
#[derive(Args, Debug)]
pub struct EpcArgs {
    /// Name or PID of a machine (cloister ps), or the socket of its QMP monitor
    #[arg(required = true, value_name = "NAME|PID|SOCKET")]
    sockets: Vec<PathBuf>,
    /// Show one report and exit
    #[arg(long)]
    once: bool,
    /// Write reports as JSON, one line per machine
    #[arg(long)]
    json: bool,
    /// Write the page maps to an SVG file, or to standard output for -, and exit
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Serve Prometheus metrics at 127.0.0.1:PORT, [::1]:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    metrics: Option<String>,
}

/// Why the EPC cannot be shown. Each message names the option or the socket, and the fix.
#[derive(Debug, Error)]
pub enum EpcError {
    /// A socket without a name.
    #[error("NAME|PID|SOCKET: it is empty: write one that cloister ps shows")]
    NoName,
    /// One socket given twice.
    #[error("{}: the socket is given twice: leave one out", .0.display())]
    Twice(PathBuf),
    /// A machine without a monitor.
    #[error(
        "{0}: the machine has no monitor, as its XDG_RUNTIME_DIR was no place for a socket: start it with another"
    )]
    NoMonitor(String),
    /// Several machines of one name.
    #[error("{0}: {1} machines have this name: write the PID of one, which cloister ps shows")]
    Ambiguous(String, usize),
    /// Two options that contradict each other.
    #[error("{0}: it does not go with {1}: leave one of them out")]
    Contradiction(&'static str, &'static str),
    /// A machine cannot be asked.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Metrics cannot be served.
    #[error("--metrics: {0}")]
    Metrics(HttpError),
    /// The picture cannot be written.
    #[error("--svg: cannot write {}: {reason}: name a file in a folder that you may write", .path.display())]
    Svg {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// Standard output or the terminal failed.
    #[error(
        "standard output: it cannot be written: give it a terminal, a file with room, or a pipe that \
         is read"
    )]
    Output(#[from] io::Error),
}

/// What is to be done.
#[derive(Debug)]
enum Mode {
    Once { json: bool },
    Stream { json: bool },
    Live,
    Picture(PathBuf),
    Metrics(HttpAddress),
}

impl EpcArgs {
    /// The sockets, of which none is there twice. As in `--qmp`, `unix:` may come first.
    fn sockets(&self) -> Result<Vec<PathBuf>, EpcError> {
        let mut sockets = Vec::new();
        for name in &self.sockets {
            let path = name.to_str().and_then(|name| name.strip_prefix("unix:"));
            let socket = match path {
                Some(path) => path.into(),
                None => of_machine(name)?.unwrap_or_else(|| name.clone()),
            };
            if socket.as_os_str().is_empty() {
                return Err(EpcError::NoName);
            }
            if sockets.contains(&socket) {
                return Err(EpcError::Twice(socket));
            }
            sockets.push(socket);
        }
        Ok(sockets)
    }

    /// Checks the options together.
    fn mode(&self, terminal: bool) -> Result<Mode, EpcError> {
        let given = [
            ("--metrics", self.metrics.is_some(), ["--svg", "--json", "--once"].as_slice()),
            ("--svg", self.svg.is_some(), &["--json"]),
        ];
        for (option, is_given, others) in given {
            for &other in others {
                let other_given = match other {
                    "--svg" => self.svg.is_some(),
                    "--json" => self.json,
                    _ => self.once,
                };
                if is_given && other_given {
                    return Err(EpcError::Contradiction(option, other));
                }
            }
        }
        if let Some(address) = &self.metrics {
            return Ok(Mode::Metrics(HttpAddress::parse(address).map_err(EpcError::Metrics)?));
        }
        Ok(match &self.svg {
            Some(path) => Mode::Picture(path.clone()),
            None if self.once => Mode::Once { json: self.json },
            None if self.json || !terminal => Mode::Stream { json: self.json },
            None => Mode::Live,
        })
    }
}

/// The socket of the machine of this name or PID, if it is none of a file's and there is such a machine.
fn of_machine(name: &Path) -> Result<Option<PathBuf>, EpcError> {
    let Some(text) = name.to_str().filter(|text| !text.contains('/')) else { return Ok(None) };
    if name.symlink_metadata().is_ok() {
        return Ok(None);
    }
    // A list that cannot be read names no machine: then it is the socket that is missing.
    let mut machines = Register::of_user().machines().unwrap_or_default();
    machines.retain(|machine| machine.name == text || machine.pid.to_string() == text);
    match machines.as_slice() {
        [] => Ok(None),
        [machine] => match machine.qmp.first() {
            Some(socket) => Ok(Some(socket.into())),
            None => Err(EpcError::NoMonitor(text.to_owned())),
        },
        several => Err(EpcError::Ambiguous(text.to_owned(), several.len())),
    }
}

/// Shows the EPC as the options say, until the machines end or, in a picture or with `--once`, one
/// time.
///
/// # Errors
///
/// [`EpcError`].
pub fn run(args: &EpcArgs) -> Result<(), EpcError> {
    let sockets = args.sockets()?;
    let outcome = match args.mode(io::stdout().is_terminal())? {
        Mode::Once { json } => once(&sockets, json),
        Mode::Stream { json } => stream(&sockets, json),
        Mode::Live => live::show(&mut watch(&sockets)?),
        Mode::Picture(path) => draw(&sockets, path),
        Mode::Metrics(address) => serve(&sockets, &address),
    };
    match outcome {
        // Whoever read the reports has seen enough.
        Err(EpcError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// A machine whose reports are shown one after the other.
struct Watched {
    socket: PathBuf,
    client: QmpClient,
    seen: Option<(Instant, EpcReport)>,
    /// EPC faults of each section in a second, once two reports are there.
    rates: Option<Vec<f64>>,
    ended: bool,
}

impl Watched {
    /// Asks for the next report, unless the machine has ended.
    fn refresh(&mut self) -> Result<(), QmpError> {
        if self.ended {
            return Ok(());
        }
        let report = match self.client.epc_report(false) {
            Err(error) if error.is_end() => {
                self.ended = true;
                return Ok(());
            }
            outcome => outcome?,
        };
        let now = Instant::now();
        self.rates = self.seen.as_ref().map(|(then, before)| {
            let seconds = now.duration_since(*then).as_secs_f64().max(1e-3);
            report.fault_rates(before, seconds)
        });
        self.seen = Some((now, report));
        Ok(())
    }

    /// The lines that show the machine.
    fn lines(&self) -> Vec<String> {
        match &self.seen {
            _ if self.ended => vec![self.end()],
            Some((_, report)) => table(report, self.rates.as_deref()),
            None => Vec::new(),
        }
    }

    /// What is said when it has ended.
    fn end(&self) -> String {
        QmpError::Ended(self.socket.clone()).to_string()
    }
}

fn watch(sockets: &[PathBuf]) -> Result<Vec<Watched>, EpcError> {
    sockets
        .iter()
        .map(|socket| {
            let client = QmpClient::connect(socket, LIMIT)?;
            Ok(Watched { socket: socket.clone(), client, seen: None, rates: None, ended: false })
        })
        .collect()
}

/// One report of each machine.
fn reports(sockets: &[PathBuf], page_map: bool) -> Result<Vec<EpcReport>, EpcError> {
    let report = |socket: &PathBuf| QmpClient::connect(socket, LIMIT)?.epc_report(page_map);
    Ok(sockets.iter().map(report).collect::<Result<_, _>>()?)
}

fn json_line(report: &EpcReport) -> io::Result<String> {
    Ok(serde_json::to_string(report)?)
}

fn once(sockets: &[PathBuf], json: bool) -> Result<(), EpcError> {
    let reports = reports(sockets, false)?;
    let mut out = io::stdout().lock();
    for report in &reports {
        let lines = if json { vec![json_line(report)?] } else { table(report, None) };
        for line in lines {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Reports one after the other, for a program or a file.
fn stream(sockets: &[PathBuf], json: bool) -> Result<(), EpcError> {
    let mut machines = watch(sockets)?;
    let mut out = io::stdout().lock();
    loop {
        let next = Instant::now() + PERIOD;
        for machine in &mut machines {
            if machine.ended {
                continue;
            }
            machine.refresh()?;
            if machine.ended {
                complain(&machine.end());
                continue;
            }
            match (&machine.seen, json) {
                (Some((_, report)), true) => writeln!(out, "{}", json_line(report)?)?,
                _ => writeln!(out, "{}\n", machine.lines().join("\n"))?,
            }
        }
        out.flush()?;
        if machines.iter().all(|machine| machine.ended) {
            return Ok(());
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn draw(sockets: &[PathBuf], path: PathBuf) -> Result<(), EpcError> {
    let picture = picture(&reports(sockets, true)?);
    if path == Path::new("-") {
        return Ok(io::stdout().lock().write_all(picture.as_bytes())?);
    }
    fs::write(&path, picture).map_err(|reason| EpcError::Svg { path, reason })
}

fn serve(sockets: &[PathBuf], address: &HttpAddress) -> Result<(), EpcError> {
    terminal::hold_stop_signals()?;
    let server = HttpServer::bind(address).map_err(EpcError::Metrics)?;
    let path = server.path().map(ToOwned::to_owned);
    terminal::on_stop_signal(Sandbox::off(), move |signal| {
        if let Some(path) = &path {
            // Nobody is left to tell.
            let _ = fs::remove_file(path);
        }
        process::exit(SIGNALLED + signal);
    })?;
    let path = match address {
        HttpAddress::Tcp(_) => "/metrics",
        HttpAddress::Unix(_) => "",
    };
    writeln!(io::stdout(), "metrics at {}{path}", server.address())?;
    // A machine serves one client after the other.
    let turn = Mutex::new(());
    server.serve(|target| {
        metrics_response(target, || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            metrics(&scrape(sockets))
        })
    });
    Ok(())
}

/// Asks all machines at the same time, so that one that hangs does not add to the others.
fn scrape(sockets: &[PathBuf]) -> Vec<Scraped> {
    thread::scope(|scope| {
        let asked: Vec<_> = sockets
            .iter()
            .map(|socket| {
                let report = move || {
                    let report = QmpClient::connect(socket, LIMIT)
                        .and_then(|mut client| client.epc_report(false));
                    report.inspect_err(|error| tracing::info!("{error}")).ok()
                };
                (socket, scope.spawn(report))
            })
            .collect();
        let asked = asked.into_iter();
        asked
            .map(|(socket, report)| Scraped {
                socket: socket.display().to_string(),
                report: report.join().unwrap_or_default(),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::RunWording;
    use crate::complaint::{Complaint, Wording as _};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: EpcArgs,
    }

    fn mode(line: &str, terminal: bool) -> Result<Mode, String> {
        let line = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        let sockets = line.args.sockets();
        sockets.and_then(|_| line.args.mode(terminal)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_choose_what_is_shown() {
        for (line, terminal, expected) in [
            ("epc s", true, "Live"),
            ("epc s t", true, "Live"),
            ("epc s", false, "Stream { json: false }"),
            ("epc s --json", true, "Stream { json: true }"),
            ("epc s --once", true, "Once { json: false }"),
            ("epc s --once --json", false, "Once { json: true }"),
            ("epc s --svg f", true, "Picture(\"f\")"),
            ("epc s --svg f --once", true, "Picture(\"f\")"),
            ("epc s --metrics 127.0.0.1:1", true, "Metrics(Tcp(127.0.0.1:1))"),
            ("epc s --metrics unix:m", true, "Metrics(Unix(\"m\"))"),
        ] {
            assert_eq!(format!("{:?}", mode(line, terminal).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_one_line() {
        for (line, expected) in [
            ("epc unix:", "NAME|PID|SOCKET: it is empty: write one that cloister ps shows"),
            ("epc s t unix:s", "s: the socket is given twice: leave one out"),
            ("epc s --svg f --json", "--svg: it does not go with --json: leave one of them out"),
            (
                "epc s --metrics 127.0.0.1:1 --svg f",
                "--metrics: it does not go with --svg: leave one of them out",
            ),
            (
                "epc s --metrics 127.0.0.1:1 --json",
                "--metrics: it does not go with --json: leave one of them out",
            ),
            (
                "epc s --metrics 127.0.0.1:1 --once",
                "--metrics: it does not go with --once: leave one of them out",
            ),
            (
                "epc s --metrics 0.0.0.0:1",
                "--metrics: 0.0.0.0:1 is open to other hosts: \
                 write 127.0.0.1:PORT, [::1]:PORT or unix:PATH",
            ),
        ] {
            assert_eq!(mode(line, true).unwrap_err(), expected, "{line}");
        }
    }

    #[test]
    fn output_that_is_full_is_one_line_that_says_so_once() {
        let full = io::Error::from(ErrorKind::StorageFull);

        let line = RunWording.line(&Complaint::of_nothing_set(&EpcError::Output(full)));

        assert_eq!(
            line,
            "standard output: it cannot be written: give it a terminal, a file with room, or a pipe \
             that is read: no storage space"
        );
    }
}
