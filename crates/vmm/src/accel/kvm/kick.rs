//! How other threads make a processor's KVM_RUN return.

#![expect(unsafe_code, reason = "signals a thread, and handles the signal")]

use std::ffi::{c_int, c_void};
use std::io;
use std::process;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::thread::gettid;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

use super::pages::RunPages;

/// A processor as other threads reach it.
///
/// A request sets `immediate_exit` first, for a KVM_RUN that begins later, and then sends the signal, for
/// one that has begun: there is no moment between. Whoever is interrupted for nothing goes on.
#[derive(Debug)]
pub(super) struct Kick {
    pages: Arc<RunPages>,
    /// The thread that runs the processor; 0 while it has none.
    thread: AtomicI32,
}

/// What a thread is sent. It has nothing to do but to make system calls return.
fn signal() -> c_int {
    SIGRTMIN()
}

extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

impl Kick {
    /// For the processor of these pages.
    pub(super) fn new(pages: Arc<RunPages>) -> Self {
        Self { pages, thread: AtomicI32::new(0) }
    }

    /// Handles the signal, in the whole process.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) fn prepare() -> io::Result<()> {
        register_signal_handler(signal(), nothing)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    /// Names the calling thread as the processor's.
    pub(super) fn enter(&self) {
        if self.thread.load(Ordering::Relaxed) == 0 {
            // It may have inherited the mask of whoever started the process.
            if let Err(error) = unblock_signal(signal()) {
                tracing::warn!(?error, "the signal that stops processors stays blocked");
            }
            self.thread.store(gettid().as_raw_nonzero().get(), Ordering::SeqCst);
        }
    }

    /// The thread goes.
    pub(super) fn leave(&self) {
        self.thread.store(0, Ordering::SeqCst);
    }

    /// Makes KVM_RUN return, now or when it is called next.
    pub(super) fn request(&self) {
        self.pages.immediate_exit().store(1, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            let process = c_int::try_from(process::id()).unwrap_or(0);
            // SAFETY: tgkill(2) has no memory as argument, and the signal has a handler that does
            // nothing. A thread of this process that has got the number meanwhile is not harmed.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal()) };
        }
    }

    /// Takes a request back that KVM_RUN has returned for.
    pub(super) fn clear(&self) {
        self.pages.immediate_exit().store(0, Ordering::SeqCst);
    }
}

/// The processors of a machine.
#[derive(Debug, Default)]
pub(super) struct Kicks(Mutex<Vec<Arc<Kick>>>);

impl Kicks {
    /// Adds one.
    pub(super) fn add(&self, kick: Arc<Kick>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kick);
    }

    /// Makes KVM_RUN of each return.
    pub(super) fn request(&self) {
        let kicks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kicks.iter().for_each(|kick| kick.request());
    }
}
