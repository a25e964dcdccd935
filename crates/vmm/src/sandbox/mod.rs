//! What is left to the process once a machine runs: files that are open already, and for each kind
//! of thread the system calls that it needs. See docs/sandbox.md.

mod descriptors;
mod environment;
mod filters;
mod landlock;
mod limits;
mod violation;

use std::sync::Arc;
use std::{io, process};

use cloister_devices::Node;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
};
use seccompiler::BpfProgram;
use thiserror::Error;

pub use descriptors::Inherited;
pub(crate) use descriptors::close_all_but;
pub use environment::forget as forget_environment;
pub(crate) use filters::TIMES_OF_OPEN_FILES;
pub use filters::ThreadKind;
pub(crate) use landlock::confine_to_folders;

use crate::accel::Ioctls;
use crate::complaint::{Complaint, Phrase, Setting, Wording};
use crate::{own_file, terminal};

/// Why the process cannot be confined. [`SandboxError::complaint`] says what to do.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The host's processor has no filters here.
    #[error("there are no filters for this host's processor")]
    Architecture,
    /// A filter cannot be made.
    #[error("cannot make the filter of {kind} threads: {reason}")]
    Filter {
        /// Whose.
        kind: ThreadKind,
        /// What is wrong with it.
        reason: seccompiler::BackendError,
    },
    /// A device has a thread that the machine's list of devices does not name.
    #[error("there is no filter for {0} threads")]
    Unknown(ThreadKind),
    /// The host has no seccomp, or forbids it.
    #[error("the host refuses a filter: {0}")]
    Refused(seccompiler::Error),
    /// The host does not take capabilities back.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(io::Error),
    /// The kernel has Landlock, and refuses it.
    #[error("the host refuses Landlock: {0}")]
    Landlock(io::Error),
    /// The host does not lower limits.
    #[error("cannot lower limits: {0}")]
    Limits(io::Error),
    /// The process that removes this one's files is gone.
    #[error("cannot reach the process that removes this one's files: {0}")]
    Keeper(io::Error),
    /// No handler for SIGSYS.
    #[error("cannot handle SIGSYS: {0}")]
    Handler(io::Error),
}

impl SandboxError {
    /// Why there is no sandbox, and what to do.
    #[must_use]
    pub fn complaint(&self) -> Complaint {
        let fix = match self {
            Self::Capabilities(error)
            | Self::Landlock(error)
            | Self::Limits(error)
            | Self::Keeper(error)
            | Self::Handler(error)
                if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) =>
            {
                "raise the limit of open files (ulimit -n)".into()
            }
            _ => turn_off(),
        };
        Complaint::new(Setting::Sandbox, self.to_string(), fix)
    }
}

/// To do without the sandbox.
#[must_use]
pub fn turn_off() -> Phrase {
    Phrase::from("write ").setting(Setting::Sandbox).text(" off")
}

/// The confinement of a process. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub struct Sandbox(Option<Arc<Confinement>>);

/// What a confined process has of its sandbox.
#[derive(Debug)]
struct Confinement {
    filters: Filters,
    /// For a thread that cannot be confined.
    wording: &'static dyn Wording,
}

/// Programs that the kernel runs at each system call.
#[derive(Debug)]
struct Filters {
    /// What opens or looks up files by their names is refused, as where there is no such file:
    /// libraries cope.
    names: BpfProgram,
    /// What no filter can judge is said not to be there.
    opaque: BpfProgram,
    /// What is not listed ends the process.
    kinds: Vec<(ThreadKind, BpfProgram)>,
}

impl Sandbox {
    /// No confinement.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Makes the filters, and takes from the calling thread and from those that it will start all
    /// capabilities, what Landlock can take, and the right to large files: to be called when every file
    /// is open, the largest of `largest_file` bytes, and before any thread is started. `devices` are
    /// those of the machine: which threads they have, and which of them reach which files; `ioctls` are the
    /// requests of its accelerator. `wording` says how the sandbox is turned off.
    ///
    /// # Errors
    ///
    /// [`SandboxError`].
    pub fn new<'a>(
        largest_file: u64,
        devices: impl IntoIterator<Item = &'a Node>,
        ioctls: &Ioctls,
        wording: &'static dyn Wording,
    ) -> Result<Self, SandboxError> {
        let architecture = filters::architecture()?;
        let filters = Filters {
            names: filters::names(architecture)?,
            opaque: filters::opaque(architecture)?,
            kinds: filters::by_kind(architecture, devices, ioctls)?,
        };
        own_file::seal().map_err(SandboxError::Keeper)?;
        violation::report_and_end(wording).map_err(SandboxError::Handler)?;
        limits::set(largest_file).map_err(SandboxError::Limits)?;
        drop_capabilities().map_err(SandboxError::Capabilities)?;
        let landlock = landlock::restrict().map_err(SandboxError::Landlock)?;
        tracing::debug!(?landlock, "the process is confined");
        Ok(Self(Some(Arc::new(Confinement { filters, wording }))))
    }

    /// Confines the calling thread, and those that it will start, for good.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Refused`], [`SandboxError::Unknown`].
    pub fn enter(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        let Some(Confinement { filters, .. }) = self.0.as_deref() else { return Ok(()) };
        violation::name_thread(kind);
        let own = filters.kinds.iter().find(|&&(known, _)| known == kind);
        let (_, own) = own.ok_or(SandboxError::Unknown(kind))?;
        for filter in [&filters.names, &filters.opaque, own] {
            seccompiler::apply_filter(filter).map_err(SandboxError::Refused)?;
        }
        Ok(())
    }
}

impl Sandbox {
    /// Confines the calling thread, or ends the process: no thread runs without its filter.
    pub fn confine(&self, kind: ThreadKind) {
        let Some(Confinement { wording, .. }) = self.0.as_deref() else { return };
        if let Err(error) = self.enter(kind) {
            terminal::restore();
            tracing::error!("{}", wording.line(&error.complaint()));
            process::exit(1);
        }
    }
}

/// Confines a process beside the machine's, which has one thread, to `calls` and what every thread needs. It
/// has no capability, writes no core dump, and a call that is not listed ends it.
///
/// # Errors
///
/// [`SandboxError`].
pub(crate) fn confine_process(calls: &[libc::c_long]) -> Result<(), SandboxError> {
    let filter = filters::of_process(filters::architecture()?, calls);
    let failed = |reason| SandboxError::Filter { kind: ThreadKind::Main, reason };
    let filter = filter.map_err(failed)?;
    limits::forbid_dumps().map_err(SandboxError::Limits)?;
    drop_capabilities().map_err(SandboxError::Capabilities)?;
    seccompiler::apply_filter(&filter).map_err(SandboxError::Refused)
}

/// Confines the calling thread of a command that runs no machine, and those that it will start: to what every
/// thread needs, `calls`, and, where it `starts_threads`, to that. No file can be opened by its name, there is no
/// capability and no core dump, and a call that is not listed ends the process.
///
/// # Errors
///
/// [`SandboxError`].
pub(crate) fn confine_command(
    calls: &[libc::c_long],
    starts_threads: bool,
) -> Result<(), SandboxError> {
    let architecture = filters::architecture()?;
    let own = filters::of_command(architecture, calls, starts_threads);
    let own = own.map_err(|reason| SandboxError::Filter { kind: ThreadKind::Main, reason })?;
    let names = filters::names(architecture)?;
    let opaque = filters::opaque(architecture)?;
    limits::forbid_dumps().map_err(SandboxError::Limits)?;
    drop_capabilities().map_err(SandboxError::Capabilities)?;
    landlock::restrict().map_err(SandboxError::Landlock)?;
    for filter in [&names, &opaque, &own] {
        seccompiler::apply_filter(filter).map_err(SandboxError::Refused)?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    clear_ambient_capability_set()?;
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

#[cfg(test)]
mod tests;
