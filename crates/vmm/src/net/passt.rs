//! The network of `user`: passt, a program that opens the guest's connections as its own, without rights. It is
//! a process beside the machine's, of which it has one end of a socket and nothing else, and it ends when the
//! other end is closed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use cloister_devices::virtio::Mac;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::set_socket_send_buffer_size;
use thiserror::Error;

use super::{GATEWAY, GUEST, Link, NAME_SERVER, NetConfig, PREFIX, UserNetwork};

const NAME: &str = "passt";
/// Where administrators' programs are, which a user's PATH may leave out.
const MORE_FOLDERS: &str = "/usr/sbin:/sbin";
/// How long it may take until it answers: a fraction of a second on a host that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that its end of the socket is to hold: what a guest does not take in time is lost there.
const SEND_BUFFER: usize = 4 << 20;
/// Bytes of a frame that it may send before the answer.
const FRAME: usize = 64 << 10;

/// How passt says that it may make no namespace, and that there is no network to be had.
const NO_NAMESPACE: &str = "user namespace";
const NO_ROUTE: [&str; 2] = ["interface not usable", "No routable interface"];

/// Why there is no network of `user`. Each message says what to do.
#[derive(Debug, Error)]
pub enum PasstError {
    /// There is no such program.
    #[error("there is no program {NAME} in PATH: install the package {NAME}, or use tap or stream")]
    Missing,
    /// It cannot be run.
    #[error("cannot run {path}: {reason}: install the package {NAME} again", path = .path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
    /// The host has no sockets or no memory for it.
    #[error("the host gives no sockets for {NAME}: {0}: raise the limit of open files (ulimit -n)")]
    Host(io::Error),
    /// It cannot isolate itself.
    #[error(
        "the host lets {NAME} make no user namespace, as containers often do: allow it (seccomp profile, \
         user.max_user_namespaces), or use tap or stream"
    )]
    NoNamespace,
    /// The host itself is on no network.
    #[error(
        "the host has no interface with a default route, so {NAME} has no network: bring one up, or use tap or stream"
    )]
    NoRoute,
    /// It ended, for another reason.
    #[error("{NAME} ended ({status}): {message}: correct that, or use tap or stream")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last that it said.
        message: String,
    },
    /// It runs and does not answer.
    #[error("{NAME} does not answer: try it by itself ({NAME} -f), or use tap or stream")]
    Silent,
}

/// The program, if the host has it.
#[derive(Clone, Debug)]
pub struct Passt(Option<PathBuf>);

impl Passt {
    /// Looks for it in PATH if one of the networks takes it. To be called before the environment is
    /// forgotten.
    #[must_use]
    pub fn find(networks: &[NetConfig]) -> Self {
        if !networks.iter().any(|network| matches!(network.link, Link::User(_))) {
            return Self(None);
        }
        let mut path = env::var_os("PATH").unwrap_or_default();
        path.push(":");
        path.push(MORE_FOLDERS);
        let mut places = env::split_paths(&path).filter(|folder| folder.is_absolute());
        Self(places.find_map(|folder| {
            let program = folder.join(NAME);
            fs::metadata(&program).is_ok_and(|found| found.is_file()).then_some(program)
        }))
    }

    /// Starts it for a device of this address, and returns the machine's end of its socket when it answers.
    ///
    /// # Errors
    ///
    /// [`PasstError`].
    pub(super) fn start(
        &self,
        user: &UserNetwork,
        mac: Mac,
        mtu: u16,
    ) -> Result<OwnedFd, PasstError> {
        let path = self.0.as_ref().ok_or(PasstError::Missing)?;
        let (own, other) = UnixStream::pair().map_err(PasstError::Host)?;
        // A small buffer makes it lose packets, and works.
        let _ = set_socket_send_buffer_size(&other, SEND_BUFFER);
        // The program is to have it, and there is no other thread that could start one.
        fcntl_setfd(&other, FdFlags::empty()).map_err(|error| PasstError::Host(error.into()))?;
        let messages = memfd_create("passt", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let mut messages = File::from(messages.map_err(|error| PasstError::Host(error.into()))?);
        let said = messages.try_clone().map_err(PasstError::Host)?;
        let mut command = Command::new(path);
        command.args(arguments(user, mtu)).arg("--fd").arg(other.as_raw_fd().to_string());
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        // What ends the machine from the keyboard goes to its whole group. This process ends after it.
        command.stderr(said).process_group(0);
        let child = command.spawn();
        let child = child.map_err(|reason| PasstError::Run { path: path.clone(), reason })?;
        drop(other);
        match await_answer(own, mac) {
            Ok(own) => {
                // What it says later nobody reads. It costs no memory, and no message fails it.
                let _ = fcntl_add_seals(&messages, SealFlags::GROW);
                Ok(own.into())
            }
            Err(error) if is_timeout(&error) => Err(PasstError::Silent),
            Err(_) => Err(reason(child, &mut messages)),
        }
    }
}

/// What passt is told besides its socket. It sends on what is for [`NAME_SERVER`] to the host's first name server,
/// as long as it is told of no other (passt of 2023-03-09: `--dns` is for its DHCP alone). Answers of that server seem to
/// come from [`NAME_SERVER`] then, also where a guest has asked the server itself and waits for its answer.
fn arguments(user: &UserNetwork, mtu: u16) -> Vec<String> {
    let mut words: Vec<String> = ["--foreground", "--quiet"].map(str::to_owned).into();
    for (option, value) in [
        ("--address", GUEST.to_string()),
        ("--netmask", PREFIX.to_string()),
        ("--gateway", GATEWAY.to_string()),
        ("--mtu", mtu.to_string()),
    ] {
        words.extend([option.to_owned(), value]);
    }
    if !user.other_names {
        words.extend(["--dns-forward".to_owned(), NAME_SERVER.to_string()]);
    }
    if !user.host_loopback {
        words.push("--no-map-gw".to_owned());
    }
    for forward in &user.forwards {
        let option = if forward.udp { "--udp-ports" } else { "--tcp-ports" };
        let ports = format!("{}/{}:{}", forward.address, forward.host_port, forward.guest_port);
        words.extend([option.to_owned(), ports]);
    }
    words
}

/// Asks for the gateway's address, as the guest will, and waits for the answer: then all is ready that could
/// fail.
fn await_answer(mut socket: UnixStream, mac: Mac) -> io::Result<UnixStream> {
    const ARP: [u8; 2] = [0x08, 0x06];
    const REPLY: [u8; 2] = [0, 2];
    let question = question(mac);
    let length = u32::try_from(question.len()).map_err(io::Error::other)?;
    socket.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let mut length = [0; 4];
        socket.read_exact(&mut length)?;
        let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if len > FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; len];
        socket.read_exact(&mut frame)?;
        if frame.get(12..14) == Some(&ARP) && frame.get(20..22) == Some(&REPLY) {
            socket.set_read_timeout(None)?;
            return Ok(socket);
        }
    }
}

/// An ARP request of the guest for the gateway's address (RFC 826), in an Ethernet frame.
fn question(mac: Mac) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    // ARP; Ethernet and IPv4, their lengths, a request.
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Why it has closed its socket.
fn reason(mut child: Child, messages: &mut File) -> PasstError {
    let status = match child.wait() {
        Ok(status) => status,
        Err(error) => return PasstError::Host(error),
    };
    let mut said = Vec::new();
    // What cannot be read is left out of the message.
    let _ = messages.seek(SeekFrom::Start(0)).and_then(|_| messages.read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    if said.contains(NO_NAMESPACE) {
        return PasstError::NoNamespace;
    }
    if NO_ROUTE.iter().any(|text| said.contains(text)) {
        return PasstError::NoRoute;
    }
    // It says besides that there is no log of the system.
    let mut lines = said.lines().map(str::trim);
    let last = lines.rfind(|line| !line.is_empty() && !line.contains("to syslog"));
    PasstError::Ended { status, message: last.unwrap_or("it says nothing").to_owned() }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Forward;
    use super::*;

    #[test]
    fn the_host_is_reached_and_ports_are_open_only_as_asked() {
        let forward = |udp| Forward {
            udp,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host_port: 2222,
            guest_port: 22,
        };
        let closed = arguments(&UserNetwork::default(), 1500).join(" ");
        let open = UserNetwork {
            forwards: vec![forward(false), forward(true)],
            host_loopback: true,
            other_names: true,
        };
        let open = arguments(&open, 1500).join(" ");

        assert!(
            closed.contains("--dns-forward 10.0.2.3") && !closed.contains("--dns "),
            "{closed}"
        );
        assert!(closed.contains("--no-map-gw") && !closed.contains("-ports"), "{closed}");
        assert!(!open.contains("--no-map-gw") && !open.contains("--dns"), "{open}");
        assert!(open.contains("--tcp-ports 127.0.0.1/2222:22"), "{open}");
        assert!(open.contains("--udp-ports 127.0.0.1/2222:22"), "{open}");
    }

    /// A program in its place that says `text` and ends.
    fn ending(text: &str) -> PasstError {
        let name = format!("cloister-passt-{}-{}", std::process::id(), text.len());
        let path = env::temp_dir().join(name);
        let lines = format!("{text}\nFailed to send 1 bytes to syslog");
        let script = format!("#!/bin/sh\ncat >&2 <<'END'\n{lines}\nEND\nexit 1\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let passt = Passt(Some(path.clone()));
        let error = passt.start(&UserNetwork::default(), [2; 6], 1500).unwrap_err();
        fs::remove_file(path).unwrap();
        error
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        for (error, line) in [
            (
                ending("Couldn't create user namespace: EPERM"),
                "the host lets passt make no user namespace",
            ),
            (
                ending("External interface not usable"),
                "the host has no interface with a default route",
            ),
            (
                ending("Failed to bind port 80"),
                "passt ended (exit status: 1): Failed to bind port 80: correct",
            ),
            (
                Passt(None).start(&UserNetwork::default(), [2; 6], 1500).unwrap_err(),
                "there is no program passt",
            ),
        ] {
            let text = error.to_string();
            assert!(text.starts_with(line) && text.ends_with("use tap or stream"), "{text}");
        }
    }
}
