//! The I/O thread: what devices do for the guest that takes longer than an access to registers, such as
//! reads and writes of a disk. One thread of a boot does it for all of its devices, one after the other.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::halt::Halt;

/// A device's part that the I/O thread does.
pub(crate) trait IoWork: Send + Sync {
    /// Does what has been asked for until now, as much of it as leaves the others their turn. Who is asked
    /// for more, or has something left, calls [`IoHandle::wake`].
    fn work(&self);

    /// What is readable when the host has something for the device, as far as it may now have.
    fn events(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

impl fmt::Debug for dyn IoWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IoWork")
    }
}

/// The work of a boot's devices, for the thread that does it.
#[derive(Debug)]
pub struct IoLoop {
    handle: IoHandle,
    work: Vec<Arc<dyn IoWork>>,
}

impl IoLoop {
    /// A loop with no work.
    ///
    /// # Errors
    /// The host has no further descriptor.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let handle = IoHandle(Arc::new(Shared {
            event,
            pause: Halt::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }));
        Ok(Self { handle, work: Vec::new() })
    }

    /// The way to the thread.
    pub fn handle(&self) -> &IoHandle {
        &self.handle
    }

    /// Adds the work of a device.
    pub(crate) fn add(&mut self, work: Arc<dyn IoWork>) {
        self.work.push(work);
    }

    /// Gives each device its turn, once.
    pub fn work_once(&self) {
        self.work.iter().for_each(|work| work.work());
    }

    /// Does the work on the calling thread until the boot is `ending`, which is looked at after
    /// [`IoHandle::look_again`].
    pub fn run(&self, ending: impl Fn() -> bool) {
        let thread = self.handle.enter();
        loop {
            thread.park(&ending);
            if ending() {
                return;
            }
            self.work_once();
            self.wait();
        }
    }

    /// Waits until there may be something to do.
    fn wait(&self) {
        let event = &self.handle.0.event;
        let of_host = self.work.iter().flat_map(|work| work.events());
        let mut events: Vec<PollFd<'_>> = std::iter::once(event.as_fd())
            .chain(of_host)
            .map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN))
            .collect();
        // An error is an interruption: the caller looks again.
        let _ = poll(&mut events, None);
        let mut counter = [0; 8];
        let _ = rustix::io::read(event, &mut counter);
    }
}

/// The way to the I/O thread. A clone is the same one.
#[derive(Clone, Debug)]
pub struct IoHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Readable when there may be something to do.
    event: OwnedFd,
    /// The machine is to stop: no request is begun.
    pause: Halt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    parked: bool,
}

impl IoHandle {
    /// Lets the thread give each device its turn.
    pub fn wake(&self) {
        // It can only fail when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
    }

    /// Makes the thread look whether it is to end.
    pub fn look_again(&self) {
        // Taking the lock orders this before or after the thread's last look.
        drop(self.lock());
        self.0.changed.notify_all();
        self.wake();
    }

    /// Makes the thread wait after the request that it is doing, until [`IoHandle::resume`]. Waits for
    /// that, `limit` at most or until the machine is `ending`, and returns whether nothing is being done.
    pub fn pause(&self, limit: Duration, ending: impl Fn() -> bool) -> bool {
        self.0.pause.request();
        self.wake();
        let busy = |state: &State| state.running && !state.parked;
        let wait = |state: &mut State| busy(state) && !ending();
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, wait);
        !busy(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Lets the thread go on.
    pub fn resume(&self) {
        let state = self.lock();
        self.0.pause.withdraw();
        drop(state);
        self.0.changed.notify_all();
    }

    /// The request to begin nothing more.
    pub(crate) fn pausing(&self) -> &Halt {
        &self.0.pause
    }

    /// Enters the calling thread as the I/O thread, until what is returned is dropped.
    fn enter(&self) -> Thread<'_> {
        self.lock().running = true;
        Thread(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one store.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The I/O thread, as its handle knows it.
struct Thread<'a>(&'a IoHandle);

impl Thread<'_> {
    /// Waits while the machine is stopped and not `ending`.
    fn park(&self, ending: impl Fn() -> bool) {
        let IoHandle(shared) = self.0;
        let mut state = self.0.lock();
        while shared.pause.requested() && !ending() {
            state.parked = true;
            shared.changed.notify_all();
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked = false;
    }
}

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        *self.0.lock() = State::default();
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
pub(crate) mod tests;
