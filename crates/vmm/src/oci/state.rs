//! What is known of containers: a folder for each, with the state in a file, a FIFO for orders, and a mark once it
//! was started.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, thread};

use libc::SIGKILL;
use rustix::fs::{Access, CWD, FileType, Mode, access, mknodat};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::exec::START;
use crate::host_file::read_at_most;

/// The version of the specification that is spoken.
pub(super) const OCI_VERSION: &str = "1.0.2";
const FOLDER: &str = "cloister-oci";
/// Where it is for root.
const RUN: &str = "/run";
const STATE: &str = "state.json";
const ORDERS: &str = "orders";
const STARTED: &str = "started";
/// Bytes of a state at most.
const LONGEST: u64 = 16 << 20;
/// How long a container that is killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder of all.
#[derive(Debug)]
pub(super) struct Containers(PathBuf);

/// What is kept of one.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    pub(super) id: String,
    pub(super) pid: i32,
    /// When the process was started, as the kernel has it: another may get the number later.
    pub(super) begun: u64,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Created,
    Running,
    Stopped,
}

/// A container that is there.
#[derive(Debug)]
pub(super) struct Known {
    folder: PathBuf,
    state: State,
}

/// A folder that was just made for a container.
#[derive(Debug)]
pub(super) struct New(PathBuf);

impl Containers {
    /// The folder that is named, or that of the user.
    pub(super) fn at(root: Option<PathBuf>) -> Self {
        let of_user = || {
            // An engine without root makes the user root of a namespace, whose /run it is not.
            let is_root = geteuid().is_root() && access(RUN, Access::WRITE_OK).is_ok();
            let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            let runtime = runtime.filter(|path| path.is_absolute() && !is_root);
            runtime.unwrap_or_else(|| PathBuf::from(RUN)).join(FOLDER)
        };
        Self(root.unwrap_or_else(of_user))
    }

    /// Makes the folder of a container.
    pub(super) fn make(&self, id: &str) -> Result<New, String> {
        check(id)?;
        let failed = |error: io::Error| {
            format!("--root: {}: {error}: name a folder that you may write", self.0.display())
        };
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o711).create(&self.0).map_err(failed)?;
        let folder = self.0.join(id);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err("container with given ID already exists".to_owned());
            }
            made => made.map_err(failed)?,
        }
        let new = New(folder);
        let owner = Mode::RUSR | Mode::WUSR;
        let made = mknodat(CWD, new.0.join(ORDERS), FileType::Fifo, owner, 0);
        made.map_err(|error| {
            new.remove();
            failed(error.into())
        })?;
        Ok(new)
    }

    /// The container of this name.
    pub(super) fn find(&self, id: &str) -> Result<Known, String> {
        check(id)?;
        let folder = self.0.join(id);
        if !folder.is_dir() {
            return Err("container does not exist".to_owned());
        }
        let path = folder.join(STATE);
        let state = match read_at_most(&path, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| format!("{}: {error}: delete it with --force", path.display()))?,
            // It is being made, or its maker was killed.
            Err(_) => State {
                id: id.to_owned(),
                pid: 0,
                begun: 0,
                bundle: PathBuf::new(),
                rootfs: PathBuf::new(),
                created: String::new(),
                annotations: BTreeMap::new(),
            },
        };
        Ok(Known { folder, state })
    }
}

/// Refuses what runc would refuse as a name, and what is no name of a folder.
fn check(id: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.chars().all(fits) {
        return Err(format!(
            "invalid container ID format: {id:?}: write letters, digits, '_', '+', '-' and '.'"
        ));
    }
    Ok(())
}

impl New {
    /// The FIFO, which is never at its end.
    pub(super) fn orders(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().read(true).write(true).open(self.0.join(ORDERS))?.into())
    }

    /// Writes the state whole.
    pub(super) fn write(&self, state: &State) -> io::Result<()> {
        let new = self.0.join("state.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        fs::rename(new, self.0.join(STATE))
    }

    /// Forgets the container.
    pub(super) fn remove(&self) {
        // What is left says so to the next of this name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Known {
    pub(super) fn status(&self) -> Status {
        let alive = self.state.pid > 0 && begun(self.state.pid) == Some(self.state.begun);
        match (alive, self.folder.join(STARTED).exists()) {
            (false, _) => Status::Stopped,
            (true, true) => Status::Running,
            (true, false) => Status::Created,
        }
    }

    /// Lets the container begin.
    pub(super) fn start(&self) -> Result<(), String> {
        let marked = File::create_new(self.folder.join(STARTED));
        marked.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => "cannot start an already running container".to_owned(),
            _ => format!("cannot start the container: {error}"),
        })?;
        self.order(START)
    }

    /// Sends the container's process a signal. SIGKILL ends the machine with it.
    pub(super) fn signal(&self, signal: i32) -> Result<(), String> {
        if self.status() == Status::Stopped {
            return Err("container not running".to_owned());
        }
        if signal != SIGKILL {
            return self.order(u8::try_from(signal).unwrap_or(START));
        }
        let process = Pid::from_raw(self.state.pid).ok_or("container not running")?;
        kill_process(process, Signal::KILL)
            .map_err(|error| format!("container not running: {error}"))
    }

    fn order(&self, order: u8) -> Result<(), String> {
        let failed = |error: io::Error| match error.raw_os_error() {
            // Nobody reads it any more.
            Some(libc::ENXIO) => "container not running".to_owned(),
            _ => format!("the container cannot be reached: {error}"),
        };
        let mut options = OpenOptions::new();
        let fifo =
            options.write(true).custom_flags(libc::O_NONBLOCK).open(self.folder.join(ORDERS));
        fifo.and_then(|mut fifo| fifo.write_all(&[order])).map_err(failed)
    }

    /// Waits for the end of a container that is killed.
    pub(super) fn await_end(&self) -> Result<(), String> {
        let start = Instant::now();
        while self.status() != Status::Stopped {
            if start.elapsed() > PATIENCE {
                return Err("the container's process does not end".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(super) fn delete(&self) -> Result<(), String> {
        let folder = self.folder.display();
        fs::remove_dir_all(&self.folder).map_err(|error| format!("cannot remove {folder}: {error}"))
    }

    /// The state as the specification and runc have it.
    pub(super) fn report(&self) -> Result<String, String> {
        let status = self.status();
        let word = match status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Stopped => "stopped",
        };
        let State { id, pid, bundle, rootfs, created, annotations, .. } = &self.state;
        let report = json!({
            "ociVersion": OCI_VERSION,
            "id": id,
            "pid": if status == Status::Stopped { 0 } else { *pid },
            "status": word,
            "bundle": bundle,
            "rootfs": rootfs,
            "created": created,
            "annotations": annotations,
        });
        Ok(format!("{report:#}\n"))
    }
}

/// When a process was started, in ticks since the host's boot; nothing of one that has ended (proc(5), `stat`).
pub(super) fn begun(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have anything in it, parentheses too.
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    // The 22nd field, after the 3rd.
    let begun = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(begun)
}

/// A path that stays what it is when this process goes elsewhere.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, String> {
    let wrong = |error| format!("{}: {error}: name a folder that is there", path.display());
    fs::canonicalize(path).map_err(wrong)
}
