//! `cloister epc` as a user meets it, in front of QMP servers of every kind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use cloister_epc_view::{EpcReport, QmpClient};
use cloister_vmm::epc_report::EpcView;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use serde_json::{Value, json};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": []}}"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cloister-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A socket on which each client is served by `serve`, on a thread of its own.
    fn server(&self, name: &str, serve: impl Fn(Peer) + Send + Sync + Clone + 'static) -> PathBuf {
        let path = self.0.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, serve) = (stream.unwrap(), serve.clone());
                thread::spawn(move || serve(Peer(stream)));
            }
        });
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A client of a fake server.
struct Peer(UnixStream);

impl Peer {
    /// Sends a line; the client may be gone.
    fn say(&mut self, line: &str) {
        let _ = self.0.write_all(format!("{line}\r\n").as_bytes());
    }

    /// The next command, or `None` when the client has gone.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        // A client sends one command at a time, so nothing is lost with the reader.
        BufReader::new(&self.0).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Greets and acknowledges `qmp_capabilities`.
    fn welcome(&mut self) {
        self.say(GREETING);
        let command = self.hear();
        assert_eq!(
            command.as_ref().map(|command| &command["execute"]),
            Some(&json!("qmp_capabilities"))
        );
        self.answer(&command.unwrap(), json!({}));
    }

    fn answer(&mut self, command: &Value, value: Value) {
        self.say(&json!({ "return": value, "id": command["id"] }).to_string());
    }

    /// Answers every command with `report` until the client goes.
    fn serve(&mut self, report: impl Fn(u64) -> Value) {
        self.welcome();
        for n in 0.. {
            let Some(command) = self.hear() else { return };
            assert_eq!(command["execute"], "x-query-sgx-epc");
            self.say(r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#);
            self.answer(&command, report(n));
        }
    }
}

/// A report of one section with `faults` EPC faults and one enclave.
fn report(name: &str, faults: u64) -> Value {
    let mut report = serde_json::to_value(EpcView::without_sgx(name).report(false)).unwrap();
    report["faults"] = json!(faults);
    report["account"]["used"] = json!(100);
    report["sections"] = json!([{
        "id": "epc0", "base": 1u64 << 32, "size": 64 << 20, "host-node": 0, "faults": faults,
        "pages": {
            "total": 16384, "backed": 100, "valid": 50, "secs": 1, "tcs": 4, "reg": 45, "va": 0,
            "trim": 0, "ss-first": 0, "ss-rest": 0, "blocked": 0, "pending": 0, "modified": 0,
            "restricted": 0
        },
        "page-map": { "pages-per-cell": 1, "cells": format!("S{:.<16383}", "TTTTRRRR") }
    }]);
    report["enclaves"] = json!([{
        "secs": 1u64 << 32, "section": "epc0", "eid": 1, "initialized": true,
        "mrenclave": "5a".repeat(32), "mrsigner": "a5".repeat(32), "isv-prod-id": 0, "isv-svn": 0,
        "base": 1u64 << 46, "size": 1 << 20, "attributes": 5, "xfrm": 3, "miscselect": 0,
        "debug": false, "threads-inside": 3, "children": 49, "virtual-children": 0, "blocked": 0,
        "pages": [{ "section": "epc0", "count": 50 }]
    }]);
    report
}

fn cloister(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloister"));
    command
        .arg("epc")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    cloister(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn once_shows_one_report_as_lines_and_as_json() {
    let scratch = Scratch::new("once");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("web-7", 9)));

    let lines = run(&[name(&socket), "--once"]);
    let object = run(&[&format!("unix:{}", name(&socket)), "--once", "--json"]);

    assert_eq!(lines.status.code(), Some(0), "{}", text(&lines.stderr));
    let shown = text(&lines.stdout);
    assert!(shown.starts_with("web-7: 100 pages used"), "{shown}");
    assert!(shown.contains(&"5a".repeat(32)) && !shown.contains('\x1b'), "{shown}");
    assert_eq!(object.status.code(), Some(0), "{}", text(&object.stderr));
    assert_eq!(text(&object.stdout).lines().count(), 1);
    let read: EpcReport = serde_json::from_slice(&object.stdout).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), report("web-7", 9));
}

#[test]
fn reports_follow_each_other_until_the_machine_ends() {
    let scratch = Scratch::new("stream");
    let socket = scratch.server("qmp", |mut peer| {
        peer.welcome();
        for n in 0..2 {
            let command = peer.hear().unwrap();
            peer.answer(&command, report("guest", 10 * n));
        }
        peer.hear().unwrap();
        peer.say(r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true}}"#);
    });

    let output = run(&[name(&socket)]);

    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    assert_eq!(shown.matches("guest: 100 pages used").count(), 2, "{shown}");
    let rate: f64 = shown
        .lines()
        .filter(|line| line.starts_with("epc0"))
        .nth(1)
        .and_then(|line| line.split_whitespace().last())
        .and_then(|rate| rate.parse().ok())
        .unwrap();
    assert!((5.0..=10.1).contains(&rate), "10 faults in at least a second: {shown}");
    let end =
        format!("cloister: {}: the machine ended: start it again to see more\n", name(&socket));
    assert_eq!(text(&output.stderr), end);
}

#[test]
fn two_machines_are_two_lines_of_json() {
    let scratch = Scratch::new("two");
    let first = scratch.server("a", |mut peer| peer.serve(|_| report("a", 1)));
    let second = scratch.server("b", |mut peer| peer.serve(|_| report("b", 2)));

    let output = run(&[name(&first), name(&second), "--once", "--json"]);

    let names: Vec<String> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<EpcReport>(line).unwrap().name)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_picture_is_written_and_a_folder_is_refused() {
    let scratch = Scratch::new("svg");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("guest", 0)));
    let file = scratch.0.join("epc.svg");

    let written = run(&[name(&socket), "--svg", name(&file)]);
    let refused = run(&[name(&socket), "--svg", name(&scratch.0)]);

    assert_eq!(written.status.code(), Some(0), "{}", text(&written.stderr));
    let picture = fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert_eq!(refused.status.code(), Some(1));
    let line = text(&refused.stderr);
    assert!(
        line.starts_with("cloister: --svg: cannot write ") && line.lines().count() == 1,
        "{line}"
    );
}

/// The error of a client in front of a server that behaves like `serve`.
fn refusal(scratch: &Scratch, name: &str, serve: fn(Peer)) -> String {
    let socket = scratch.server(name, serve);
    let limit = Duration::from_millis(300);
    let error = match QmpClient::connect(&socket, limit) {
        Ok(mut client) => client.epc_report(false).unwrap_err(),
        Err(error) => error,
    };
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line.strip_prefix(&format!("{}: ", socket.display())).expect("names the socket").to_owned()
}

#[test]
fn whatever_a_server_does_is_one_line_with_the_socket_and_the_fix() {
    let scratch = Scratch::new("servers");
    const SILENT: &str = "no answer within 300 ms: end the other client of this socket, or the \
                          machine if it hangs";
    const ENDED: &str = "the machine ended: start it again to see more";
    const NAME: &str = "name the socket of a QMP monitor";
    type Case = (&'static str, fn(Peer), String);
    let cases: [Case; 16] = [
        ("mute", |peer| hold(peer), SILENT.into()),
        (
            "half a greeting",
            |mut peer| {
                let _ = peer.0.write_all(br#"{"QMP": "#);
                hold(peer);
            },
            SILENT.into(),
        ),
        (
            "mute after the greeting",
            |mut peer| {
                peer.say(GREETING);
                hold(peer);
            },
            SILENT.into(),
        ),
        (
            "mute after the capabilities",
            |mut peer| {
                peer.welcome();
                hold(peer);
            },
            SILENT.into(),
        ),
        ("one byte at a time", |mut peer| drip(&mut peer), SILENT.into()),
        (
            "events for ever",
            |mut peer| {
                peer.welcome();
                flood(&mut peer);
            },
            SILENT.into(),
        ),
        ("gone", drop, ENDED.into()),
        (
            "gone in the greeting",
            |mut peer| {
                let _ = peer.0.write_all(b"{\"QM");
            },
            ENDED.into(),
        ),
        (
            "gone after the capabilities",
            |mut peer| {
                peer.welcome();
                peer.hear();
            },
            ENDED.into(),
        ),
        (
            "garbage",
            |mut peer| {
                peer.say("SSH-2.0-OpenSSH_9.2\x1b[2J");
                hold(peer);
            },
            format!(r#"it sends "SSH-2.0-OpenSSH_9.2?[2J", which is not a JSON object: {NAME}"#),
        ),
        (
            "no text",
            |mut peer| {
                let _ = peer.0.write_all(b"\xff\xfe\n");
                hold(peer);
            },
            format!("it sends no text: {NAME}"),
        ),
        (
            "another protocol",
            |mut peer| {
                peer.say("{}");
                hold(peer);
            },
            format!("it does not greet as QMP does: {NAME}"),
        ),
        (
            "a number",
            |mut peer| {
                peer.say("5");
                hold(peer);
            },
            format!(r#"it sends "5", which is not a JSON object: {NAME}"#),
        ),
        (
            "an answer to nothing",
            |mut peer| {
                peer.welcome();
                peer.say(r#"{"answer": 1}"#);
                hold(peer);
            },
            format!("it sends what is neither an answer nor an event: {NAME}"),
        ),
        (
            "another machine monitor",
            |mut peer| {
                peer.welcome();
                let id = peer.hear().unwrap()["id"].clone();
                let desc = "The command x-query-sgx-epc has not been found";
                peer.say(
                    &json!({ "error": { "class": "CommandNotFound", "desc": desc }, "id": id })
                        .to_string(),
                );
                hold(peer);
            },
            "it refuses x-query-sgx-epc: The command x-query-sgx-epc has not been found: \
             name the socket of a machine of Cloister"
                .into(),
        ),
        (
            "another version",
            |mut peer| peer.serve(|_| json!({ "version": 2 })),
            "its report has 2 version instead of 1: use the cloister that runs the machine".into(),
        ),
    ];

    for (case, serve, expected) in cases {
        assert_eq!(refusal(&scratch, case, serve), expected, "{case}");
    }
    let unreadable =
        refusal(&scratch, "unreadable", |mut peer| peer.serve(|_| json!({ "version": 1 })));
    assert!(unreadable.starts_with("its report is unreadable (missing field"), "{unreadable}");
}

/// Says nothing for as long as the client is there.
fn hold(mut peer: Peer) {
    while peer.hear().is_some() {}
}

fn drip(peer: &mut Peer) {
    while peer.0.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(10));
    }
}

fn flood(peer: &mut Peer) {
    while peer.0.write_all(b"{\"event\": \"RTC_CHANGE\"}\n").is_ok() {}
}

#[test]
fn a_line_without_an_end_is_given_up() {
    let scratch = Scratch::new("endless");
    let socket =
        scratch.server("qmp", |mut peer| while peer.0.write_all(&[b'['; 1 << 16]).is_ok() {});

    let error = QmpClient::connect(&socket, PATIENCE).unwrap_err();

    assert!(error.to_string().contains("it sends a line without an end"), "{error}");
}

#[test]
fn a_socket_that_nobody_listens_on_is_refused_with_what_to_do() {
    let scratch = Scratch::new("nobody");
    let stale = scratch.0.join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let file = scratch.0.join("file");
    fs::write(&file, b"").unwrap();
    let missing = scratch.0.join("missing");
    let long = "x".repeat(200);
    let again = "the machine has ended, or this is not a socket: start it again, or name another";
    for (path, end) in [
        (
            name(&missing),
            "the machine has ended, or has another socket: start it, or name that of its QMP monitor",
        ),
        (name(&stale), again),
        (name(&file), again),
        (name(&scratch.0), again),
        (long.as_str(), "a socket's name has at most 107 bytes: give a shorter one"),
    ] {
        for option in [&["--once"][..], &["--json"], &[], &["--svg", "/nonexistent/file"]] {
            let output = run(&[&[path], option].concat());

            let line = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{path} {option:?}: {line}");
            assert_eq!((text(&output.stdout), line.lines().count()), ("", 1), "{line}");
            assert!(line.starts_with(&format!("cloister: {path}: ")), "{line}");
            assert!(line.trim_end().ends_with(end), "{line}");
        }
    }
}

/// What `cloister epc` shows on a terminal until it is given `keys`, with the terminal's settings in
/// the first and in the last line.
fn on_a_terminal(socket: &Path, keys: &[u8]) -> String {
    let program = env!("CARGO_BIN_EXE_cloister");
    let line = format!("stty -g; {program} epc {}; stty -g", name(socket));
    // script(1) gives it a terminal.
    let mut script = Command::new("script")
        .args(["--quiet", "--command", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = script.stdin.take().unwrap();
    let mut stdout = script.stdout.take().unwrap();
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    let frames = |shown: &[u8]| shown.windows(3).filter(|part| part == b"\x1b[H").count();
    while frames(&shown) < 2 {
        let length = stdout.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&shown));
        shown.extend(&buffer[..length]);
    }
    stdin.write_all(keys).unwrap();
    stdout.read_to_end(&mut shown).unwrap();
    assert!(script.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn the_live_view_is_refreshed_in_place_until_q_or_ctrl_c_and_restores_the_terminal() {
    let scratch = Scratch::new("live");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|n| report("guest", n)));

    for keys in [&b"q"[..], b"\x03"] {
        let shown = on_a_terminal(&socket, keys);

        let (before, rest) = shown.split_once("\x1b[?1049h\x1b[?25l").unwrap();
        let (view, after) = rest.split_once("\x1b[?25h\x1b[?1049l").unwrap();
        assert_eq!(before.trim(), after.trim(), "settings of the terminal");
        let frame = view.split("\x1b[H").nth(2).unwrap();
        let lines: Vec<&str> = frame.split("\x1b[K\r\n").collect();
        assert_eq!(lines[0], "cloister epc: q quits");
        assert!(lines[2].starts_with("guest: 100 pages used"), "{lines:?}");
        let rate = lines[5].rsplit(' ').next().unwrap().parse::<f64>();
        assert!(rate.is_ok_and(|rate| (0.2..=1.1).contains(&rate)), "{lines:?}");
    }
}

#[test]
fn the_live_view_ends_with_the_machine_and_says_so() {
    let scratch = Scratch::new("live-end");
    let socket = scratch.server("qmp", |mut peer| {
        peer.welcome();
        for n in 0..2 {
            let command = peer.hear().unwrap();
            peer.answer(&command, report("guest", n));
        }
    });

    let shown = on_a_terminal(&socket, b"");

    let after = shown.split_once("\x1b[?1049l").unwrap().1;
    assert!(after.contains(&format!("{}: the machine ended", name(&socket))), "{after}");
}

#[test]
fn a_full_queue_of_clients_is_no_trap() {
    let scratch = Scratch::new("queue");
    let path = scratch.0.join("qmp");
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 0).unwrap();
    // Nobody accepts it.
    let _first = UnixStream::connect(&path).unwrap();

    let error = QmpClient::connect(&path, Duration::from_millis(50)).unwrap_err();

    assert!(error.to_string().ends_with(": end the other clients of this socket"), "{error}");
}

#[test]
fn each_wrong_option_is_one_line_and_exit_code_1() {
    for (args, start) in [
        (&[][..], "the following required arguments were not provided: <NAME|PID|SOCKET>..."),
        (&[""], "a value is required for '<NAME|PID|SOCKET>...' but none was supplied"),
        (&["unix:"], "NAME|PID|SOCKET: it is empty"),
        (&["s", "s"], "s: the socket is given twice"),
        (&["s", "--svg"], "a value is required for '--svg <FILE>'"),
        (&["s", "--svg", "f", "--json"], "--svg: it does not go with --json"),
        (&["s", "--metrics"], "a value is required for '--metrics <ADDRESS>'"),
        (&["s", "--metrics", "9100"], "--metrics: \"9100\" is not an address"),
        (&["s", "--metrics", "-1"], "--metrics: \"-1\" is not an address"),
        (&["s", "--metrics", "0.0.0.0:9100"], "--metrics: 0.0.0.0:9100 is open to other hosts"),
        (&["s", "--metrics", "127.0.0.1:1", "--once"], "--metrics: it does not go with --once"),
        (
            &["s", "--metrics", "unix:/nonexistent/m"],
            "--metrics: cannot listen at unix:/nonexistent/m",
        ),
        (&["s", "--once", "--once"], "the argument '--once' cannot be used multiple times"),
        (&["s", "--watch"], "unexpected argument '--watch' found"),
    ] {
        let output = run(args);

        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {line}");
        assert_eq!((text(&output.stdout), line.lines().count()), ("", 1), "{args:?}: {line}");
        assert!(line.starts_with(&format!("cloister: {start}")), "{args:?}: {line}");
    }
}

/// A running `cloister epc --metrics`, ended with the value.
struct Serving(Child);

impl Serving {
    /// Starts it, and returns where it says that it serves.
    fn start(args: &[&str]) -> (Self, String) {
        let mut child = cloister(args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("metrics at ").expect("an address").to_owned();
        (Self(child), address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tcp(address: &str) -> TcpStream {
    let host = address.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The response to `request`, all of it.
fn response(mut stream: impl Read + Write, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_scrape_asks_the_machine_and_says_when_it_has_gone() {
    let scratch = Scratch::new("scrape");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("guest", 7)));
    let (_serving, address) = Serving::start(&[name(&socket), "--metrics", "127.0.0.1:0"]);

    let up = response(tcp(&address), GET);
    fs::remove_file(&socket).unwrap();
    let down = response(tcp(&address), GET);

    assert!(up.starts_with("HTTP/1.1 200 OK\r\n"), "{up}");
    let (head, body) = up.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(
        body.contains("cloister_epc_faults_total{vm=\"guest\",section=\"epc0\"} 7\n"),
        "{body}"
    );
    assert!(
        down.contains(&format!("cloister_qmp_up{{socket=\"{}\"}} 0\n", name(&socket))),
        "{down}"
    );
    assert!(!down.contains("cloister_epc_pages{"), "{down}");
}

#[test]
fn a_unix_socket_serves_too_and_goes_with_the_server() {
    let scratch = Scratch::new("unix");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("guest", 7)));
    let at = scratch.0.join("metrics");
    // Left behind by a server that was killed.
    drop(UnixListener::bind(&at).unwrap());
    let address = format!("unix:{}", name(&at));
    let (mut serving, told) = Serving::start(&[name(&socket), "--metrics", &address]);
    assert_eq!(told, address);

    let got = response(UnixStream::connect(&at).unwrap(), GET);
    let second = run(&[name(&socket), "--metrics", &address]);
    Command::new("kill").args(["-TERM", &serving.0.id().to_string()]).status().unwrap();
    let ended = serving.0.wait().unwrap();

    assert!(got.contains("cloister_enclave_threads{vm=\"guest\""), "{got}");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("cannot listen at unix:"), "{}", text(&second.stderr));
    assert_eq!(ended.code(), Some(128 + 15));
    assert!(!at.exists());
}

#[test]
fn bad_http_gets_an_answer_or_an_end_and_harms_no_other_client() {
    let scratch = Scratch::new("http");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("guest", 7)));
    let (_serving, address) = Serving::start(&[name(&socket), "--metrics", "localhost:0"]);
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 100_000]].concat();
    // Clients that say nothing hold their places for a while, but not all of them.
    let mute: Vec<_> = (0..2).map(|_| tcp(&address)).collect();

    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"PUT /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let got = response(tcp(&address), request);
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
    }
    let mut half = tcp(&address);
    half.write_all(b"GET /met").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = String::new();
    half.read_to_string(&mut got).unwrap();
    assert!(got.starts_with("HTTP/1.1 400 "), "{got}");
    assert!(response(tcp(&address), GET).starts_with("HTTP/1.1 200 OK"));
    let head = response(tcp(&address), b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    drop(mute);
}

#[test]
fn too_many_clients_are_told_to_come_back() {
    let scratch = Scratch::new("many");
    let socket = scratch.server("qmp", |mut peer| peer.serve(|_| report("guest", 7)));
    let (_serving, address) = Serving::start(&[name(&socket), "--metrics", "127.0.0.1:0"]);
    let (sender, receiver) = channel();

    let held: Vec<_> = (0..16).map(|_| tcp(&address)).collect();
    thread::spawn({
        let address = address.clone();
        move || {
            let mut last = tcp(&address);
            let mut response = String::new();
            // Before it has sent anything.
            let _ = last.read_to_string(&mut response);
            let _ = sender.send(response);
        }
    });
    let response_to_last = receiver.recv_timeout(PATIENCE).unwrap();
    drop(held);

    assert!(response_to_last.starts_with("HTTP/1.1 503 "), "{response_to_last}");
    let free = Instant::now() + PATIENCE;
    // A client that is sent away before its request was read may see a reset.
    let served = || {
        let mut stream = tcp(&address);
        let mut response = String::new();
        let outcome = stream.write_all(GET).and_then(|()| stream.read_to_string(&mut response));
        outcome.is_ok() && response.starts_with("HTTP/1.1 200")
    };
    while !served() {
        assert!(Instant::now() < free, "the places are not free again");
        thread::sleep(Duration::from_millis(20));
    }
}
