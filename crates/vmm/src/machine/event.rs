//! What happens to a machine as a whole, told to whoever watches it.

use serde::Serialize;

/// Why a machine ends or starts over, by the names that QEMU's monitor gives to the causes
/// (`ShutdownCause` in its `qapi/run-state.json`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownCause {
    /// The host failed the machine.
    HostError,
    /// The monitor's command `quit`.
    HostQmpQuit,
    /// The monitor's command `system_reset`.
    HostQmpSystemReset,
    /// A signal such as SIGINT.
    HostSignal,
    /// The user, at the terminal.
    HostUi,
    /// The guest powered off.
    GuestShutdown,
    /// The guest reset the machine, or had a triple fault.
    GuestReset,
}

impl ShutdownCause {
    /// Whether the guest did it.
    #[must_use]
    pub const fn is_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset)
    }
}

/// Something that happened to a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MachineEvent {
    /// No processor runs any more, until [`MachineEvent::Resume`].
    Stop,
    /// The processors go on.
    Resume,
    /// The power button was pressed.
    Powerdown,
    /// The machine was reset and boots again.
    Reset(ShutdownCause),
    /// The machine has come to its end.
    Shutdown(ShutdownCause),
}

/// What a machine is doing, by the names of QEMU's `RunState`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Its processors run.
    Running,
    /// It was stopped.
    Paused,
    /// It was reset while it was stopped.
    Prelaunch,
    /// It has come to its end.
    Shutdown,
}
