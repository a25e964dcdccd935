//! `cloister aesm`: Intel's AESM service for the programs of a machine that `cloister run` or `cloister qemu` started.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{process, thread};

use clap::Args;
use cloister_attest::aesm::Aesm;
use libc::c_long;

use super::service::{open, serve};
use super::{AttestationError, Certified, is_confined};
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
/// How long to wait before the next client when the host has no descriptor for one.
const RETRY: Duration = Duration::from_millis(100);

/// Options of `cloister aesm`.
#[derive(Args, Debug)]
pub struct AesmArgs {
    /// Socket of the machine's streams, the SOCK of its --vsock cid=CID,path=SOCK
    #[arg(long, value_name = "SOCK")]
    vsock: PathBuf,
    /// Directory of the SGX platform of the machine
    #[arg(long, value_name = "DIR")]
    platform: PathBuf,
    /// Directory of the platform whose keys certify this one, as for cloister pki [default: its own]
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// Give certificates the names that Intel's have, as cloister pki did
    #[arg(long)]
    intel_names: bool,
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
    let certified = Certified {
        platform: args.platform.clone(),
        authority: args.authority.clone(),
        intel_names: args.intel_names,
    };
    // A machine's platform has been there before its quotes.
    let aesm = open(&certified, platform_dir::open_existing)?;
    let mut path = args.vsock.clone().into_os_string();
    path.push(format!("_{PORT}"));
    if args.vsock.as_os_str().as_encoded_bytes().starts_with(b"cid=") {
        return Err(AttestationError::VsockOption(args.vsock.clone()));
    }
    let listen = Listen::new(path, false).map_err(AttestationError::Vsock)?;
    terminal::hold_stop_signals().map_err(AttestationError::Host)?;
    let Socket { listener, file, .. } = Socket::bind(&listen).map_err(AttestationError::Socket)?;
    listener.set_nonblocking(false).map_err(AttestationError::Host)?;
    let file = Mutex::new(Some(file));
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
    serve_all(&aesm, &listener);
    Ok(String::new())
}

/// Serves every client, until the process ends.
fn serve_all(aesm: &Aesm, listener: &UnixListener) {
    let active = AtomicUsize::new(0);
    thread::scope(|scope| {
        loop {
            let Ok((client, _)) = listener.accept() else {
                thread::sleep(RETRY);
                continue;
            };
            let active = &active;
            if active.fetch_add(1, Ordering::SeqCst) >= CLIENTS {
                active.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let spawned =
                thread::Builder::new().name("client".into()).spawn_scoped(scope, move || {
                    // A client that goes away does not concern the others, nor one that says nothing.
                    let limited = client.set_read_timeout(Some(PATIENCE));
                    let limited = limited.and_then(|()| client.set_write_timeout(Some(PATIENCE)));
                    let _ = limited.and_then(|()| serve(aesm, &client.into()));
                    active.fetch_sub(1, Ordering::SeqCst);
                });
            if spawned.is_err() {
                active.fetch_sub(1, Ordering::SeqCst);
            }
        }
    });
}
