//! `cloister aesm`: Intel's AESM service for the programs of a machine that `cloister run` or `cloister qemu` started.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use cloister_epc_view::serve_clients;
use libc::c_long;

use super::certified::CertifierArgs;
use super::service::{open, serve};
use super::{AttestationError, is_confined};
use crate::platform_dir;
use crate::qmp::{Listen, Socket};
use crate::sandbox::{self, Sandbox};
use crate::standard::print;
use crate::terminal::{self, SIGNALLED};

/// The port of the host to which `cloister-aesmd` in the machine connects (`guest/aesmd`).
const PORT: u32 = 1028;
/// What the service asks of the host, beyond what every thread may and the start of threads.
const CALLS: &[c_long] =
    &[libc::SYS_accept4, libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_setsockopt];
/// Clients at a time; others are turned away. A machine's programs connect for each request.
const CLIENTS: usize = 64;
/// How long a client may take for a request, and for its response.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of `cloister aesm`.
#[derive(Args, Debug)]
pub struct AesmArgs {
    /// Socket of the machine's streams, the SOCK of its --vsock cid=CID,path=SOCK
    #[arg(long, value_name = "SOCK")]
    vsock: PathBuf,
    /// Directory of the SGX platform of the machine
    #[arg(long, value_name = "DIR")]
    platform: PathBuf,
    #[command(flatten)]
    certifier: CertifierArgs,
    /// Confine the process to the system calls it needs: on or off
    #[arg(long, value_name = "on|off", default_value = "on")]
    sandbox: String,
}

/// Serves until the process is ended.
///
/// # Errors
///
/// [`AttestationError`].
pub fn aesm(args: &AesmArgs) -> Result<String, AttestationError> {
    let confined = is_confined(&args.sandbox)?;
    // A machine's platform has been there before its quotes.
    let aesm = open(&args.certifier.of(&args.platform), platform_dir::open_existing)?;
    let mut path = args.vsock.clone().into_os_string();
    path.push(format!("_{PORT}"));
    if args.vsock.as_os_str().as_encoded_bytes().starts_with(b"cid=") {
        return Err(AttestationError::VsockOption(args.vsock.clone()));
    }
    let listen = Listen::new(path, false).map_err(AttestationError::Vsock)?;
    terminal::hold_stop_signals().map_err(AttestationError::Host)?;
    let Socket { listener, file, .. } = Socket::bind(&listen).map_err(AttestationError::Socket)?;
    listener.set_nonblocking(false).map_err(AttestationError::Host)?;
    let file = Mutex::new(file);
    terminal::on_stop_signal(Sandbox::off(), move |signal| {
        drop(file.lock().unwrap_or_else(PoisonError::into_inner).take());
        process::exit(SIGNALLED + signal);
    })
    .map_err(AttestationError::Host)?;
    if confined {
        // This thread and those of clients. That of signals removes the socket's file.
        sandbox::confine_command(CALLS, true).map_err(AttestationError::Sandbox)?;
    }
    print(&format!("AESM at {}\n", listen.path.display())).map_err(AttestationError::Output)?;
    let serve = |client: UnixStream| {
        // A client that goes away does not concern the others, nor one that says nothing.
        let limited = client.set_read_timeout(Some(PATIENCE));
        let limited = limited.and_then(|()| client.set_write_timeout(Some(PATIENCE)));
        let _ = limited.and_then(|()| serve(&aesm, &client.into()));
    };
    serve_clients(CLIENTS, || Ok(listener.accept()?.0), serve, drop);
    Ok(String::new())
}
