//! The handle on a machine that runs: input for its console, and the way to stop, reset and end it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cloister_devices::PowerButton;
use rustix::process::Pid;
use thiserror::Error;

use super::console::{ConsoleInputs, Screen};
use super::debug::Debugging;
use super::event::{MachineEvent, RunState, ShutdownCause};
use super::gate::{Gate, Job, NoAnswer};
use super::run::Stop;
use crate::accel::Vcpu;
use crate::terminal::Consumer;

/// How long [`Control::stop`] waits for a processor that is in the middle of a device access which
/// the host holds up, such as output to a terminal that does not take it, and for a request to a device,
/// and [`Control::cpu_threads`] for a boot; [`Control::ask`] waits for all of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handle on a machine. A clone is the same handle.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    screen: Screen,
    /// Why the machine is to end, if it is.
    quit: OnceLock<ShutdownCause>,
    /// The signal that asked to end the machine; 0 for none.
    signal: AtomicI32,
    /// The machine is to be reset.
    reset: AtomicBool,
    gate: Arc<Gate>,
    debugging: Arc<Debugging>,
    /// Locked over each transition, so that events come in the order of what they tell.
    state: Mutex<RunState>,
    boot: Mutex<Option<Boot>>,
    watchers: Mutex<Vec<Watcher>>,
    /// Called once the machine is to end.
    on_quit: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

type Watcher = Box<dyn Fn(MachineEvent) + Send>;

/// What belongs to the boot that runs.
pub(super) struct Boot {
    pub(super) stop: Arc<Stop>,
    pub(super) inputs: ConsoleInputs,
    pub(super) button: Option<PowerButton>,
}

/// The machine has come to its end: it cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the machine has come to its end")]
pub struct Ended;

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("state", &self.0.state)
            .field("quit", &self.0.quit)
            .field("gate", &self.0.gate)
            .finish_non_exhaustive()
    }
}

/// Why processors do not answer a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AskError {
    /// The machine has come to its end.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The machine is between two boots.
    #[error("the machine is between two boots and has no processors: ask again")]
    BetweenBoots,
    /// The host holds up a processor in a device access.
    #[error("a processor is held up in a device access and does not answer: ask again")]
    HeldUp,
    /// The processors do not stop at so many places.
    #[error("the accelerator has no room for so many breakpoints and watchpoints")]
    DebugPoints,
}

impl Control {
    /// A handle for one machine, whose consoles print to `screen`. A screen that takes nothing for a
    /// moment says [`WouldBlock`](std::io::ErrorKind::WouldBlock) and is asked again, unless the
    /// machine is to end.
    #[must_use]
    pub fn new(screen: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Shared {
            screen: Arc::new(Mutex::new(screen)),
            quit: OnceLock::new(),
            signal: AtomicI32::new(0),
            reset: AtomicBool::new(false),
            gate: Arc::default(),
            debugging: Arc::default(),
            state: Mutex::new(RunState::Running),
            boot: Mutex::new(None),
            watchers: Mutex::new(Vec::new()),
            on_quit: Mutex::new(Vec::new()),
        }))
    }

    pub(super) fn screen(&self) -> Screen {
        self.0.screen.clone()
    }

    pub(super) fn gate(&self) -> Arc<Gate> {
        self.0.gate.clone()
    }

    pub(super) fn debugging(&self) -> Arc<Debugging> {
        self.0.debugging.clone()
    }

    /// Calls `watcher` for each event from now on, on the thread where it happens. It must return
    /// soon and call nothing of this handle.
    pub fn watch(&self, watcher: impl Fn(MachineEvent) + Send + 'static) {
        lock(&self.0.watchers).push(Box::new(watcher));
    }

    /// Ends the machine, or keeps it from starting, because the user wants it.
    pub fn quit(&self) {
        self.quit_because(ShutdownCause::HostUi);
    }

    /// Ends the machine, or keeps it from starting. The first cause stands.
    pub fn quit_because(&self, cause: ShutdownCause) {
        let first = self.0.quit.set(cause).is_ok();
        self.end_boot();
        if first {
            lock(&self.0.on_quit).iter().for_each(|watcher| watcher());
        }
    }

    /// Calls `watcher`, which must return soon, when the machine is to end, or now if it is already.
    pub(super) fn on_quit(&self, watcher: impl Fn() + Send + 'static) {
        lock(&self.0.on_quit).push(Box::new(watcher));
        // Behind the push, so that a quit at the same time is seen on one side at least.
        if self.quit_cause().is_some() {
            lock(&self.0.on_quit).iter().for_each(|watcher| watcher());
        }
    }

    /// Ends the machine because of a signal. The first one stands.
    pub fn quit_for(&self, signal: i32) {
        let _ = self.0.signal.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
        self.quit_because(ShutdownCause::HostSignal);
    }

    /// The signal that ended the machine, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.signal.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Resets the machine, as its guest could: it boots again, or ends where it is not to boot
    /// again. A stopped machine stays stopped, at the beginning.
    pub fn reset(&self) {
        self.0.reset.store(true, Ordering::SeqCst);
        self.end_boot();
    }

    /// Stops the processors between two instructions and with them the guest's clock, and then the
    /// devices between two requests: what the guest has asked for beyond is done after
    /// [`Control::resume`]. Returns when none of them is at work any more. A processor whose device access
    /// the host holds up for longer than a second is not waited for, nor is a request that takes longer: it
    /// stops when that is over, before its next instruction or request.
    pub fn stop(&self) {
        let mut state = self.lock_state();
        if *state != RunState::Running {
            return;
        }
        self.0.gate.close();
        if let Some(boot) = &*self.boot() {
            boot.stop.interrupt();
        }
        let ending = || self.quit_cause().is_some();
        if !self.0.gate.wait_until_still(PATIENCE, ending) && !ending() {
            tracing::warn!("a processor is held up in a device access and stops later");
        }
        // Not under the lock, which the end of the boot takes.
        let stop = self.boot().as_ref().map(|boot| boot.stop.clone());
        if stop.is_some_and(|stop| !stop.io().pause(PATIENCE, ending)) && !ending() {
            tracing::warn!("a device is in the middle of a request and stops later");
        }
        *state = RunState::Paused;
        self.tell(MachineEvent::Stop);
    }

    /// Has the machine stand at its beginning when it boots, until [`Control::resume`]. To be called
    /// before it runs.
    pub fn begin_stopped(&self) {
        *self.lock_state() = RunState::Prelaunch;
        self.0.gate.close();
    }

    /// Lets the processors go on after [`Control::stop`]. For the guest no time has passed.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub fn resume(&self) -> Result<(), Ended> {
        self.resume_but(BTreeSet::new())
    }

    /// As [`Control::resume`], but for processors `held`, which stay until the machine is resumed again.
    ///
    /// # Errors
    ///
    /// [`Ended`].
    pub fn resume_but(&self, held: BTreeSet<u32>) -> Result<(), Ended> {
        let mut state = self.lock_state();
        match *state {
            RunState::Running => return Ok(()),
            RunState::Shutdown => return Err(Ended),
            RunState::Paused | RunState::Prelaunch => {}
        }
        *state = RunState::Running;
        self.0.gate.release(held);
        self.tell(MachineEvent::Resume);
        // Under the lock, so that the time is taken back from the clock that stood still.
        let boot = self.boot();
        if let Some(boot) = &*boot {
            boot.stop.io().resume();
        }
        self.0.gate.open(|time| {
            if let Some(boot) = &*boot {
                boot.stop.skip_time(time);
            }
        });
        Ok(())
    }

    /// Asks processors `cpus` a question, each on its own thread and between two instructions, and returns
    /// their answers in the order of the processors. All processors of the machine are stopped for it, as by
    /// [`Control::stop`], and a machine that runs goes on after the last answer; for the guest no time has
    /// passed, and nobody is told of it. `question` must return soon.
    ///
    /// # Errors
    ///
    /// [`AskError`]: a boot that begins is waited for a second, its processors are waited for a second to
    /// stop and a second to answer, and nothing is waited for beyond the machine's end.
    pub fn ask<T: Send + 'static>(
        &self,
        cpus: Range<u32>,
        question: impl FnOnce(&mut dyn Vcpu) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, AskError> {
        let ending = || self.quit_cause().is_some();
        let gate = &self.0.gate;
        if self.state() != RunState::Shutdown {
            // For a boot that begins. Whether they are there is looked at below.
            let _ = gate.threads(cpus.end, PATIENCE, ending);
        }
        // Held to the end: no transition comes between, and no other boot begins.
        let state = self.lock_state();
        if *state == RunState::Shutdown || ending() {
            return Err(Ended.into());
        }
        let stop = self.boot().as_ref().map(|boot| boot.stop.clone());
        let stop = stop.ok_or(AskError::BetweenBoots)?;
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let job = |cpu| -> (u32, Job) {
            let (question, answers) = (question.clone(), answers.clone());
            let job = move |vcpu: &mut dyn Vcpu| {
                let answer = question(vcpu);
                lock(&answers).insert(cpu, answer);
            };
            (cpu, Box::new(job))
        };
        let jobs = cpus.map(job).collect();
        let running = *state == RunState::Running;
        if running {
            gate.close();
            stop.interrupt();
            // One that does not come may not be among those that are asked.
            gate.wait_until_still(PATIENCE, ending);
        }
        let answered = gate.ask(jobs, PATIENCE, ending);
        if running {
            gate.open(|time| stop.skip_time(time));
        }
        match answered {
            Ok(()) => Ok(std::mem::take(&mut *lock(&answers)).into_values().collect()),
            Err(_) if ending() => Err(Ended.into()),
            Err(NoAnswer::Gone) => Err(AskError::BetweenBoots),
            Err(NoAnswer::HeldUp) => Err(AskError::HeldUp),
        }
    }

    /// Presses the power button.
    pub fn powerdown(&self) {
        self.tell(MachineEvent::Powerdown);
        // Not under the lock: the button delivers an interrupt on this thread.
        let button = self.boot().as_ref().and_then(|boot| boot.button.clone());
        if let Some(button) = button {
            button.press();
        }
    }

    /// What the machine is doing.
    #[must_use]
    pub fn state(&self) -> RunState {
        *self.lock_state()
    }

    /// The host's threads of processors 0 to `cpus - 1`; `None` while the machine is between two
    /// boots.
    #[must_use]
    pub fn cpu_threads(&self, cpus: u32) -> Option<Vec<Pid>> {
        self.0.gate.threads(cpus, PATIENCE, || self.quit_cause().is_some())
    }

    /// Sends bytes to the guest's console and returns how many were taken. Before the guest
    /// starts, none are.
    #[must_use]
    pub fn send(&self, bytes: &[u8]) -> usize {
        // Not under the lock: a console may deliver an interrupt on this thread.
        let inputs = self.boot().as_ref().map(|boot| boot.inputs.clone());
        inputs.map_or(0, |inputs| inputs.send(bytes))
    }

    /// Names what a new boot is reached by. Returns whether it may start.
    pub(super) fn begin(&self, boot: Boot) -> bool {
        let mut current = self.boot();
        self.0.gate.renew();
        *current = Some(boot);
        self.quit_cause().is_none() && !self.0.reset.load(Ordering::SeqCst)
    }

    /// Ends the boot. Returns whether it was [`Control::reset`] that ended it.
    pub(super) fn end(&self) -> bool {
        *self.boot() = None;
        self.0.reset.swap(false, Ordering::SeqCst)
    }

    /// The machine was reset, and boots again.
    pub(super) fn was_reset(&self, cause: ShutdownCause) {
        let mut state = self.lock_state();
        if *state == RunState::Paused {
            *state = RunState::Prelaunch;
        }
        self.tell(MachineEvent::Reset(cause));
    }

    /// The machine has come to its end. The first cause stands.
    pub(super) fn has_ended(&self, cause: ShutdownCause) {
        let mut state = self.lock_state();
        if *state == RunState::Shutdown {
            return;
        }
        *state = RunState::Shutdown;
        self.tell(MachineEvent::Shutdown(cause));
    }

    /// Why the machine is to end, if it is.
    #[must_use]
    pub fn quit_cause(&self) -> Option<ShutdownCause> {
        self.0.quit.get().copied()
    }

    fn end_boot(&self) {
        if let Some(boot) = &*self.boot() {
            boot.stop.request();
        }
    }

    fn tell(&self, event: MachineEvent) {
        tracing::debug!(?event, "machine");
        for watcher in &*lock(&self.0.watchers) {
            watcher(event);
        }
    }

    fn boot(&self) -> MutexGuard<'_, Option<Boot>> {
        lock(&self.0.boot)
    }

    fn lock_state(&self) -> MutexGuard<'_, RunState> {
        lock(&self.0.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumer for Control {
    fn send(&self, bytes: &[u8]) -> usize {
        Self::send(self, bytes)
    }

    fn quit(&self) {
        Self::quit(self);
    }
}
