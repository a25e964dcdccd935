//! The value of `--qmp`, and the socket that it names.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use thiserror::Error;

use super::server::ServeError;
use crate::own_file::OwnFile;

/// Longest path of a Unix socket in bytes: `sun_path` of unix(7) without its NUL.
pub(crate) const MAX_PATH: usize = 107;

/// Where to listen for clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The socket's file.
    pub path: PathBuf,
    /// Wait for a client before the machine starts.
    pub wait: bool,
}

/// Why the value of `--qmp` cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ListenError {
    /// It does not begin with a kind of socket that there is.
    #[error("{0:?} is not a Unix socket: write unix:PATH[,wait=on|off]")]
    Kind(String),
    /// No path.
    #[error("the path of the socket is missing: write unix:PATH[,wait=on|off]")]
    NoPath,
    /// The path is longer than a socket's address can be.
    #[error("the path has {0} bytes and a socket's at most {MAX_PATH}: name a shorter one")]
    LongPath(usize),
    /// A word after the path that has no meaning.
    #[error("unknown option {0:?}: after the path only wait=on or wait=off may follow")]
    Option(String),
    /// `wait=` twice.
    #[error("wait is given twice: leave one out")]
    WaitTwice,
}

impl Listen {
    /// Clients at the socket `path`.
    ///
    /// # Errors
    ///
    /// [`ListenError::NoPath`] and [`ListenError::LongPath`].
    pub fn new(path: impl Into<PathBuf>, wait: bool) -> Result<Self, ListenError> {
        let path = path.into();
        match path.as_os_str().len() {
            0 => Err(ListenError::NoPath),
            1..=MAX_PATH => Ok(Self { path, wait }),
            long => Err(ListenError::LongPath(long)),
        }
    }

    /// Reads the value of `--qmp`: `unix:PATH[,wait=on|off]`. As in QEMU, a comma in the path is
    /// written twice.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub fn parse(text: &str) -> Result<Self, ListenError> {
        let rest = text.strip_prefix("unix:").ok_or_else(|| ListenError::Kind(text.to_owned()))?;
        let mut words = rest.split(',');
        let mut path = words.next().unwrap_or_default().to_owned();
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            // An empty word is between two commas, which are one of the path.
            if options.is_empty()
                && word.is_empty()
                && let Some(more) = words.next()
            {
                path = path + "," + more;
            } else {
                options.push(word);
            }
        }
        let mut wait = None;
        for option in options {
            let value = match option {
                "wait=on" => true,
                "wait=off" => false,
                _ => return Err(ListenError::Option(option.to_owned())),
            };
            if wait.replace(value).is_some() {
                return Err(ListenError::WaitTwice);
            }
        }
        Self::new(path, wait.unwrap_or(false))
    }
}

/// A socket that clients can connect to.
#[derive(Debug)]
pub struct Socket {
    pub(crate) listener: UnixListener,
    /// Its file, unless another removes it.
    pub(crate) file: Option<OwnFile>,
    /// Wait for a client before the machine starts.
    pub(crate) wait: bool,
}

impl Socket {
    /// Makes the socket. A socket that is there and that nobody has is replaced: it is what a process
    /// left that ended without cleaning up.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn bind(listen: &Listen) -> Result<Self, ServeError> {
        let Listen { path, wait } = listen;
        let refused = |reason| ServeError::Bind { path: path.clone(), reason };
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => {
                if is_in_use(path).map_err(|error| refused(error.into()))? {
                    return Err(ServeError::InUse(path.clone()));
                }
                fs::remove_file(path).map_err(refused)?;
            }
            Ok(_) => return Err(ServeError::NotSocket(path.clone())),
            // Whatever else is wrong with the path, bind says.
            Err(_) => {}
        }
        // Where the file is, whatever the working directory is later.
        let file = std::path::absolute(path).map_err(refused)?;
        let mut socket = Self::bind_in(path).map_err(refused)?;
        socket.file = Some(OwnFile::new(file).map_err(refused)?);
        Ok(Self { wait: *wait, ..socket })
    }

    /// Makes a socket in a folder whose files another removes.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub(crate) fn bind_in(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file: None, wait: false })
    }
}

/// Whether a process has the socket at `path`. Whoever listens there does not notice: a datagram socket
/// cannot connect to a socket of streams, and the host tells that apart from one that nobody has
/// (EPROTOTYPE and ECONNREFUSED of unix(7) and connect(2)). A connection that is made could be the
/// client that a machine waits for.
fn is_in_use(path: &Path) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    match connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN | Errno::PERM) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_socket_that_is_listened_on_is_refused_unnoticed_and_one_left_behind_is_replaced() {
        let path = std::env::temp_dir().join(format!("cloister-listen-{}", std::process::id()));
        let listen = Listen::new(&path, false).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();

        let refused = Socket::bind(&listen).unwrap_err().to_string();
        let client = listener.accept().unwrap_err();
        drop(listener);
        let replaced = Socket::bind(&listen);

        assert!(
            refused.ends_with("is the socket of a running process: end it, or name another path")
        );
        assert_eq!(client.kind(), ErrorKind::WouldBlock);
        assert!(replaced.is_ok());
    }

    #[test]
    fn a_value_is_a_path_and_perhaps_whether_to_wait() {
        for (text, path, wait) in [
            ("unix:qmp.sock", "qmp.sock", false),
            ("unix:/run/a b,wait=on", "/run/a b", true),
            ("unix:q,wait=off", "q", false),
            ("unix:a,,b,wait=on", "a,b", true),
            ("unix:a,,", "a,", false),
        ] {
            assert_eq!(Listen::parse(text), Ok(Listen { path: path.into(), wait }), "{text}");
        }
    }

    #[test]
    fn each_wrong_value_is_one_line_with_the_fix() {
        let long = format!("unix:{}", "x".repeat(108));
        for (text, line) in [
            ("", r#""" is not a Unix socket: write unix:PATH[,wait=on|off]"#),
            ("tcp:1", r#""tcp:1" is not a Unix socket: write unix:PATH[,wait=on|off]"#),
            ("unix:", "the path of the socket is missing: write unix:PATH[,wait=on|off]"),
            ("unix:,wait=on", "the path of the socket is missing: write unix:PATH[,wait=on|off]"),
            (
                "unix:q,wait=maybe",
                r#"unknown option "wait=maybe": after the path only wait=on or wait=off may follow"#,
            ),
            ("unix:q,", r#"unknown option "": after the path only wait=on or wait=off may follow"#),
            ("unix:q,wait=on,wait=on", "wait is given twice: leave one out"),
            (&long, "the path has 108 bytes and a socket's at most 107: name a shorter one"),
        ] {
            assert_eq!(Listen::parse(text).unwrap_err().to_string(), line, "{text}");
        }
    }
}
