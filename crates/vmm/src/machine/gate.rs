//! The gate at which the processors of a stopped machine wait, and answer questions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::gettid;

use crate::accel::Vcpu;

/// What a processor does at the gate, on its own thread. It must return soon.
pub(super) type Job = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

/// The gate. Each processor's thread comes to it before its first instruction and whenever it is
/// interrupted, and waits there as long as it is closed.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// A processor stopped for its debugger: closed for that reason too, until a release.
    trapped: bool,
    /// Processors that stay while the gate is open.
    held: BTreeSet<u32>,
    /// The host's threads of the processors, by APIC ID.
    threads: BTreeMap<u32, Pid>,
    /// How many of them wait.
    waiting: usize,
    /// When the last of those that wait came, or the gate was closed again while they waited.
    still_since: Option<Instant>,
    /// What processors are to do while they wait, by APIC ID.
    jobs: BTreeMap<u32, Job>,
    /// The processors that are doing it.
    at_work: BTreeSet<u32>,
}

impl State {
    /// Whether a processor that comes to the gate stays there.
    fn stays(&self, cpu: u32) -> bool {
        self.closed || self.trapped || self.held.contains(&cpu)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("closed", &self.closed)
            .field("trapped", &self.trapped)
            .field("held", &self.held)
            .field("threads", &self.threads)
            .field("waiting", &self.waiting)
            .field("jobs", &self.jobs.keys())
            .field("at_work", &self.at_work)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// Enters the calling thread as that of processor `cpu`, until what is returned is dropped.
    pub(super) fn enter(&self, cpu: u32) -> Passage<'_> {
        self.lock().threads.insert(cpu, gettid());
        self.changed.notify_all();
        Passage { gate: self, cpu }
    }

    /// Closes the gate: a processor that comes to it waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Some may not have left since it was closed before.
        if state.waiting != 0 && state.still_since.is_none() {
            state.still_since = Some(Instant::now());
        }
    }

    /// Closes the gate for a debugger: what opens it for others leaves it closed.
    pub(super) fn trap(&self) {
        self.lock().trapped = true;
    }

    /// Takes [`Gate::trap`] back. Processors `held` stay when the gate is opened.
    pub(super) fn release(&self, held: BTreeSet<u32>) {
        let mut state = self.lock();
        (state.trapped, state.held) = (false, held);
    }

    /// Waits until every processor waits at the gate, `limit` at most or until the machine is
    /// `ending`, and returns whether all do.
    pub(super) fn wait_until_still(&self, limit: Duration, ending: impl Fn() -> bool) -> bool {
        let moving = |state: &State| state.waiting < state.threads.len();
        let wait = |state: &mut State| moving(state) && !ending();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, wait);
        !moving(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Has processors do their jobs at the closed gate. Waits until all are done, `limit` at most, or until
    /// one of the processors has left for good or the machine is `ending`; jobs that are not begun then are
    /// forgotten.
    pub(super) fn ask(
        &self,
        jobs: BTreeMap<u32, Job>,
        limit: Duration,
        ending: impl Fn() -> bool,
    ) -> Result<(), NoAnswer> {
        let mut state = self.lock();
        state.jobs = jobs;
        self.changed.notify_all();
        let busy = |state: &State| !state.jobs.is_empty() || !state.at_work.is_empty();
        let gone = |state: &State| state.jobs.keys().any(|cpu| !state.threads.contains_key(cpu));
        let wait = |state: &mut State| busy(state) && !gone(state) && !ending();
        let waited = self.changed.wait_timeout_while(state, limit, wait);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let answer = match busy(&state) {
            false => Ok(()),
            true if gone(&state) => Err(NoAnswer::Gone),
            true => Err(NoAnswer::HeldUp),
        };
        state.jobs.clear();
        answer
    }

    /// Opens the gate. Before anybody passes, `take_back` gets the time for which no processor
    /// was moving.
    pub(super) fn open(&self, take_back: impl FnOnce(Duration)) {
        let mut state = self.lock();
        if let Some(since) = state.still_since.take() {
            take_back(since.elapsed());
        }
        state.closed = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Forgets for how long nothing moved, and what held the processors of another boot.
    pub(super) fn renew(&self) {
        let mut state = self.lock();
        (state.still_since, state.trapped) = (None, false);
        state.held.clear();
    }

    /// Makes every thread at the gate look again whether it is to end.
    pub(super) fn wake(&self) {
        // Taking the lock orders this before or after a waiter's last look.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// The host's threads of processors 0 to `cpus - 1`, for which this waits `limit` at most.
    /// `None` if they are not all there then, or when the machine is `ending`.
    pub(super) fn threads(
        &self,
        cpus: u32,
        limit: Duration,
        ending: impl Fn() -> bool,
    ) -> Option<Vec<Pid>> {
        let missing = |state: &State| state.threads.len() < cpus as usize;
        let wait = |state: &mut State| missing(state) && !ending();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, wait);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        (!missing(&state)).then(|| state.threads.values().copied().collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why not every job was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoAnswer {
    /// A processor has no thread: its boot has not begun, or has ended.
    Gone,
    /// A processor did not come to the gate, or the machine is ending.
    HeldUp,
}

/// A processor's thread, as the gate knows it.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    gate: &'a Gate,
    cpu: u32,
}

impl Passage<'_> {
    /// Waits while the gate is closed and the thread is not to end, and meanwhile has `vcpu` do what it is
    /// asked.
    pub(super) fn pass(&self, vcpu: &mut dyn Vcpu, ending: impl Fn() -> bool) {
        let mut state = self.gate.lock();
        if !state.stays(self.cpu) || ending() {
            return;
        }
        state.waiting += 1;
        state.still_since = Some(Instant::now());
        self.gate.changed.notify_all();
        while state.stays(self.cpu) && !ending() {
            let Some(job) = state.jobs.remove(&self.cpu) else {
                state = self.gate.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.at_work.insert(self.cpu);
            // Others pass and ask meanwhile.
            drop(state);
            job(vcpu);
            state = self.gate.lock();
            state.at_work.remove(&self.cpu);
            self.gate.changed.notify_all();
        }
        state.waiting -= 1;
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.threads.remove(&self.cpu);
        // After a job that panicked.
        state.at_work.remove(&self.cpu);
        drop(state);
        self.gate.changed.notify_all();
    }
}
