//! Back ends of a machine's consoles: the terminal, nothing, a file or a socket.

mod socket;

pub use socket::ConsoleSocket;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use thiserror::Error;

use crate::host_file::open_for_writing;
use crate::machine::Control;
use crate::qmp::{Listen, ServeError, Socket};
use crate::sandbox::Sandbox;
use crate::standard::PolledOutput;
use crate::terminal::{self, RawMode};

/// The back end of the consoles that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chardev {
    /// Standard input and output.
    Stdio,
    /// Nothing: output is dropped, and there is no input.
    Null,
    /// A file that is made anew and gets the output.
    File(PathBuf),
    /// A socket for one client after the other. What is printed while there is none is dropped.
    Unix(Listen),
}

/// Why a backend cannot be opened.
#[derive(Debug, Error)]
pub enum ChardevError {
    /// The file cannot be made.
    #[error("cannot make {path}: {reason}: name a file in a directory that can be written", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] ServeError),
}

/// A backend that is open. No thread of it runs yet.
#[derive(Debug)]
pub enum Backend {
    /// Standard input and output.
    Stdio,
    /// Nothing.
    Null,
    /// A file.
    File(File),
    /// A socket.
    Unix(ConsoleSocket),
}

impl Chardev {
    /// Opens the backend.
    ///
    /// # Errors
    ///
    /// [`ChardevError`].
    pub fn open(&self) -> Result<Backend, ChardevError> {
        Ok(match self {
            Self::Stdio => Backend::Stdio,
            Self::Null => Backend::Null,
            Self::File(path) => Backend::File(
                open_for_writing(path, 0o666, true)
                    .map_err(|reason| ChardevError::File { path: path.clone(), reason })?,
            ),
            Self::Unix(listen) => Backend::Unix(ConsoleSocket::new(Socket::bind(listen)?)),
        })
    }
}

impl Backend {
    /// Bytes of the file that it writes to, if it does.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        match self {
            Self::File(file) => file.metadata().map_or(0, |metadata| metadata.len()),
            _ => 0,
        }
    }

    /// Where the consoles print to.
    ///
    /// # Errors
    ///
    /// The host has no further descriptor.
    pub fn output(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stdio => Box::new(PolledOutput::new(io::stdout())),
            Self::Null => Box::new(io::sink()),
            Self::File(file) => Box::new(PolledOutput::new(file.try_clone()?)),
            Self::Unix(socket) => Box::new(socket.output()),
        })
    }

    /// Passes input on to `control` from now on, on a thread that `sandbox` confines. Waits for a
    /// client first where one is to be waited for, or until `given_up`. A terminal is in raw mode as
    /// long as what is returned lives.
    ///
    /// # Errors
    ///
    /// The terminal refuses raw mode, or the host gives no thread.
    pub fn start(
        &self,
        control: &Control,
        sandbox: &Sandbox,
        given_up: impl Fn() -> bool,
    ) -> io::Result<Option<RawMode>> {
        match self {
            Self::Stdio => {
                terminal::read_input(sandbox.clone(), control.clone())?;
                RawMode::enter().map_err(|error| {
                    let fix = "give the console a pipe or </dev/null";
                    io::Error::other(format!(
                        "standard input: the terminal refuses raw mode: {error}: {fix}"
                    ))
                })
            }
            Self::Null | Self::File(_) => Ok(None),
            Self::Unix(socket) => {
                socket.serve(sandbox.clone(), control.clone())?;
                socket.wait_for_client(given_up);
                Ok(None)
            }
        }
    }
}
