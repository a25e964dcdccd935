//! `cloister-aesmd`: Intel's AESM socket in a machine of `cloister run` or `cloister qemu`. `cloister aesm` on the
//! host answers.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io};

use guest_aesmd::{PORT, ask, listen, relay, serve};
use guest_vsock::connect;

/// What there is to say to any argument.
const USAGE: &str = "usage: cloister-aesmd, without arguments: makes /var/run/aesmd/aesm.socket, at which cloister aesm on \
                     the host answers";
/// How often a failure to reach the host is told of at most: every program may cause one.
const PAUSE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(word) = env::args_os().nth(1) {
        if word == "--help" || word == "-h" {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        eprintln!("cloister-aesmd: {}: there are no options: {USAGE}", word.display());
        return ExitCode::FAILURE;
    }
    let listener = match listen() {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cloister-aesmd: /var/run/aesmd/aesm.socket cannot be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = tell_systemd() {
        eprintln!("cloister-aesmd: systemd cannot be told that it is ready: {error}");
    }
    let told = Mutex::new(None::<Instant>);
    serve(&listener, move |client| {
        // Anew for each client: the host's service may have been started again.
        let host = connect(PORT).inspect_err(|error| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.is_none_or(|told| told.elapsed() >= PAUSE) {
                *told = Some(Instant::now());
                eprintln!(
                    "cloister-aesmd: the host cannot be reached at port {PORT}: {error}: start cloister aesm there, \
                     and if that is done, let this process have more open files"
                );
            }
        })?;
        let mut host = File::from(host);
        relay(client, |request| ask(&mut host, request))
    });
    ExitCode::SUCCESS
}

/// Says that clients can come, where systemd has started this (sd_notify(3)).
fn tell_systemd() -> io::Result<()> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    UnixDatagram::unbound()?.send_to(b"READY=1", socket).map(drop)
}
