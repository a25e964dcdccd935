//! `cloister-aesmd`: Intel's AESM socket in a machine of `cloister run` or `cloister qemu`. `cloister aesm` on the
//! host answers.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::{env, io};

use guest_aesmd::{PORT, ask, connect, listen, relay, serve};

fn main() -> ExitCode {
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
    serve(&listener, |client| {
        // Anew for each client: the host's service may have been started again.
        let host = connect(PORT).inspect_err(|error| {
            eprintln!(
                "cloister-aesmd: nobody answers at port {PORT} of the host: {error}: start cloister aesm there"
            );
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
