//! Streams between sockets of the guest and of the host.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::setup::expect;

/// Bytes of each stream, each way: more than all buffers on the way hold.
const LEN: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// The guest sends back what it is sent, on a stream to the host and on one from the host.
pub(super) fn echo(setup: &Setup) -> Result<()> {
    let socket = Setup::socket("vsock");
    let port = format!("{socket}_52");
    let listener = UnixListener::bind(&port)?;
    let boot = setup.tasks("modules,vsock").option("--vsock", &format!("cid=3,path={socket}"));

    let (transcript, from_guest, to_guest) = thread::scope(|scope| {
        let host = scope.spawn(|| {
            let from_guest =
                listener.accept().map(|(stream, _)| stream).context("the guest's stream");
            let from_guest = from_guest.and_then(exchange);
            (from_guest, connect(&socket).and_then(exchange))
        });
        let transcript = setup.boot_to_power_off(&boot);
        // Lets the other thread end where the guest never came.
        let _ = UnixStream::connect(&port);
        let (from_guest, to_guest) =
            host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (transcript, from_guest, to_guest)
    });
    fs::remove_file(&port)?;
    let transcript = transcript?;

    expect(&transcript, "vsock: port 54 does not: Connection reset by peer")?;
    expect(&transcript, "init: end vsock 0")?;
    ensure!(from_guest?, "the stream to the host came back changed");
    ensure!(to_guest?, "the stream from the host came back changed");
    ensure!(!fs::exists(&socket)?, "the socket is left there");
    Ok(())
}

/// Connects to the guest's port 53 once somebody listens there.
fn connect(socket: &str) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        let mut stream = UnixStream::connect(socket).context("the machine's socket")?;
        stream.write_all(b"CONNECT 53\n")?;
        let mut line = String::new();
        // The line alone: what follows is the guest's.
        let _ = BufReader::with_capacity(1, &stream).read_line(&mut line);
        if line.starts_with("OK ") {
            return Ok(stream);
        }
        ensure!(start.elapsed() < PATIENCE, "the guest does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends bytes, ends that half, and returns whether the same came back to the end of the other half.
fn exchange(mut stream: UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let bytes: Vec<u8> = (0..LEN).map(|at| (at * 31 % 253) as u8).collect();
    let mut back = Vec::new();
    let mut sender = stream.try_clone()?;
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            sender.write_all(&bytes)?;
            sender.shutdown(Shutdown::Write)
        });
        stream.read_to_end(&mut back)?;
        sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(back == bytes)
}
