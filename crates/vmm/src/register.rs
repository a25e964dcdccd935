//! The user's running machines: a file for each in a folder of the user's, locked as long as the machine
//! runs, and beside it the socket of a monitor for a machine that was given none. Whoever looks into the folder
//! removes what nobody has locked any more, so that a machine that was killed leaves nothing behind, and its own
//! process need not be able to remove a file.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::MachineConfig;
use crate::qmp::Socket;

/// The folder's name in the user's runtime directory.
const NAME: &str = "cloister";
/// How names of files end, and those of sockets beside them.
const ENDING: &str = "json";
const SOCKET: &str = "qmp";
/// More than any entry has.
const LONGEST: u64 = 64 << 10;

/// A machine of the user's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Entry {
    /// Number of its process.
    pub pid: u32,
    /// Its name, or the command that it runs.
    pub name: String,
    /// The command of `cloister` that it was started with.
    pub command: String,
    /// When, in seconds since 1970.
    pub started: u64,
    /// What executes its processors, as `--accel` calls it.
    pub accel: String,
    /// Number of processors.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// Bytes of EPC in all sections.
    pub epc: u64,
    /// Sockets of its monitors.
    pub qmp: Vec<String>,
}

impl Entry {
    /// This process's entry, of a machine without monitors on software processors.
    #[must_use]
    pub fn new(name: String, command: &str, machine: &MachineConfig) -> Self {
        Self {
            pid: std::process::id(),
            name,
            command: command.to_owned(),
            started: now(),
            accel: "soft".to_owned(),
            cpus: machine.cpus,
            memory: machine.ram,
            epc: machine.epc.iter().map(|section| section.size).sum(),
            qmp: Vec::new(),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Why the folder cannot be used.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Others can write to it.
    #[error("{path} is not a folder that only you have: remove it, or let XDG_RUNTIME_DIR name one", path = .0.display())]
    Foreign(PathBuf),
    /// The host refuses it.
    #[error("{path}: {reason}: let XDG_RUNTIME_DIR name a folder that you may write", path = .path.display())]
    Host {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        reason: io::Error,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Register(PathBuf);

/// A machine's entry, as long as this is there.
#[derive(Debug)]
pub struct Registered {
    _locked: File,
    monitor: Option<Socket>,
}

impl Registered {
    /// The socket of the monitor that comes with the entry, if one does: to be served.
    pub fn take_monitor(&mut self) -> Option<Socket> {
        self.monitor.take()
    }
}

impl Register {
    /// The folder in `XDG_RUNTIME_DIR`, or one in `/tmp` with the user's number. To be asked before the
    /// environment is forgotten.
    #[must_use]
    pub fn of_user() -> Self {
        // Another user's, as sudo leaves it, is no place for files of this one.
        let is_own = |path: &PathBuf| {
            fs::metadata(path)
                .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
        };
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|path| path.is_absolute() && is_own(path));
        Self(match runtime {
            Some(path) => path.join(NAME),
            None => Path::new("/tmp").join(format!("{NAME}-{}", geteuid().as_raw())),
        })
    }

    /// Enters a machine. One without monitors gets one, if the host allows a socket there.
    ///
    /// # Errors
    ///
    /// [`RegisterError`].
    pub fn enter(&self, mut entry: Entry) -> Result<Registered, RegisterError> {
        let failed = |reason| RegisterError::Host { path: self.0.clone(), reason };
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let _folder = self.lock()?;
        self.sweep().map_err(failed)?;
        let path = self.0.join(format!("{}.{ENDING}", entry.pid));
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        let mut monitor = None;
        if entry.qmp.is_empty() {
            let path = path.with_extension(SOCKET);
            monitor = listen(&path);
            entry.qmp.extend(monitor.iter().map(|_| path.to_string_lossy().into_owned()));
        }
        let written = serde_json::to_vec(&entry).map_err(io::Error::from);
        written.and_then(|bytes| file.write_all(&bytes)).map_err(failed)?;
        Ok(Registered { _locked: file, monitor })
    }

    /// Enters a machine, which runs just as well unlisted.
    #[must_use]
    pub fn list(&self, entry: Entry) -> Option<Registered> {
        match self.enter(entry) {
            Ok(registered) => return Some(registered),
            // Somebody has made it to be used.
            Err(error @ RegisterError::Foreign(_)) => tracing::warn!("cloister ps: {error}"),
            Err(error) => tracing::info!("cloister ps does not list the machine: {error}"),
        }
        None
    }

    /// The machines that run, the oldest first.
    ///
    /// # Errors
    ///
    /// [`RegisterError`].
    pub fn machines(&self) -> Result<Vec<Entry>, RegisterError> {
        if fs::symlink_metadata(&self.0).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            return Ok(Vec::new());
        }
        let _folder = self.lock()?;
        let swept = self.sweep();
        let mut machines =
            swept.map_err(|reason| RegisterError::Host { path: self.0.clone(), reason })?;
        machines.sort_by_key(|entry| (entry.started, entry.pid));
        Ok(machines)
    }

    /// Locks the folder, which only this user may have, so that nobody sees half of a change.
    fn lock(&self) -> Result<File, RegisterError> {
        let failed = |reason| RegisterError::Host { path: self.0.clone(), reason };
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(&self.0);
        let folder = folder.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => RegisterError::Foreign(self.0.clone()),
            _ => failed(error),
        })?;
        let found = folder.metadata().map_err(failed)?;
        if found.uid() != geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(RegisterError::Foreign(self.0.clone()));
        }
        folder.lock().map_err(failed)?;
        Ok(folder)
    }

    /// Removes the entries of machines that are gone, and returns the others. The folder is locked.
    fn sweep(&self) -> io::Result<Vec<Entry>> {
        let mut alive = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == SOCKET) {
                // Of a file that a version without sockets has removed. It may be another's.
                if !path.with_extension(ENDING).exists() {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => {
                    // First the socket, which nobody would find without the file. It need not have one.
                    let _ = fs::remove_file(path.with_extension(SOCKET));
                    fs::remove_file(&path)?;
                }
                Err(TryLockError::WouldBlock) => alive.extend(read(&file)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(alive)
    }
}

/// A socket at `path`, of a machine that runs just as well without.
fn listen(path: &Path) -> Option<Socket> {
    // Whose it was is gone: the name of the file beside it was free.
    let _ = fs::remove_file(path);
    let bound = Socket::bind_in(path);
    bound.inspect_err(|error| tracing::info!("no monitor at {}: {error}", path.display())).ok()
}

/// What an entry says, if it is one of this version's.
fn read(file: &File) -> Option<Entry> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                env::temp_dir().join(format!("cloister-register-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn entry(pid: u32) -> Entry {
        Entry {
            pid,
            name: format!("machine-{pid}"),
            command: "run".into(),
            started: 1000 - u64::from(pid),
            accel: "soft".into(),
            cpus: 2,
            memory: 1 << 30,
            epc: 64 << 20,
            qmp: vec!["/run/q".into()],
        }
    }

    #[test]
    fn machines_are_listed_as_long_as_they_run_and_the_oldest_comes_first() {
        let scratch = Scratch::new("list");
        let register = Register(scratch.0.join(NAME));
        let none = register.machines().unwrap();

        let one = register.enter(entry(1)).unwrap();
        let two = register.enter(entry(2)).unwrap();
        let both = register.machines().unwrap();
        drop(one);
        let left = register.machines().unwrap();
        drop(two);
        let files = || fs::read_dir(&register.0).unwrap().count();
        let before = files();
        let three = register.enter(entry(3)).unwrap();

        assert_eq!((none, both), (vec![], vec![entry(2), entry(1)]));
        assert_eq!(left, [entry(2)]);
        // What a machine left, the next one removes.
        assert_eq!((before, files()), (1, 1));
        drop(three);
    }

    #[test]
    fn a_machine_without_monitors_has_one_for_as_long_as_it_runs() {
        let scratch = Scratch::new("monitor");
        let register = Register(scratch.0.join(NAME));
        let names = || {
            let names = fs::read_dir(&register.0).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };

        let mut one = register.enter(Entry { qmp: Vec::new(), ..entry(1) }).unwrap();
        let mut two = register.enter(entry(2)).unwrap();
        let (socket, none) = (one.take_monitor(), two.take_monitor());
        let listed = register.machines().unwrap().remove(1);
        let connected = std::os::unix::net::UnixStream::connect(&listed.qmp[0]);
        let before = names();
        // Killed: its files stay, and the next look removes them.
        drop((socket, one));
        let left = register.machines().unwrap();

        // Nor does a socket stay whose file is gone.
        fs::write(register.0.join("7.qmp"), "").unwrap();
        let _ = register.machines().unwrap();

        assert!(connected.is_ok() && none.is_none(), "{connected:?} {none:?}");
        assert_eq!(listed.qmp, [register.0.join("1.qmp").to_str().unwrap()]);
        assert_eq!(before, ["1.json", "1.qmp", "2.json"]);
        assert_eq!((left, names()), (vec![entry(2)], vec!["2.json".into()]));
        drop(two);
    }

    #[test]
    fn an_entry_of_another_machine_is_left_alone() {
        let scratch = Scratch::new("namespace");
        let register = Register(scratch.0.join(NAME));

        let one = register.enter(entry(1)).unwrap();
        let again = register.enter(entry(1));

        assert!(matches!(again, Err(RegisterError::Host { .. })), "{again:?}");
        assert_eq!(register.machines().unwrap(), [entry(1)]);
        drop(one);
    }

    #[test]
    fn a_folder_of_others_is_not_used() {
        let scratch = Scratch::new("foreign");
        let open = scratch.0.join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&scratch.0, scratch.0.join("link")).unwrap();
        fs::write(scratch.0.join("file"), "").unwrap();

        for name in ["open", "link", "file"] {
            let register = Register(scratch.0.join(name));

            assert!(matches!(register.enter(entry(1)), Err(RegisterError::Foreign(_))), "{name}");
            assert!(matches!(register.machines(), Err(RegisterError::Foreign(_))), "{name}");
        }
    }
}
