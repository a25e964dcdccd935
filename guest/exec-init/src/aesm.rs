//! The socket of Intel's AESM service, at which programs ask for quotes. The process that answers is beside the machine's
//! own on the host, and has one stream.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use guest_aesmd::{PORT, ask, listen, relay, serve};
use guest_vsock::connect;

/// Serves the socket from now on.
pub(crate) fn start() -> io::Result<()> {
    let host = Mutex::new(File::from(connect(PORT)?));
    let listener = listen()?;
    thread::Builder::new().spawn(move || {
        serve(&listener, move |client| {
            relay(client, |request| {
                ask(&mut *host.lock().unwrap_or_else(PoisonError::into_inner), request)
            })
        });
    })?;
    Ok(())
}
