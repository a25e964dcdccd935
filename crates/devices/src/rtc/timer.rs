//! The thread that raises the RTC's interrupts when they are due.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::Rtc;

/// Raises the interrupts of an [`Rtc`] in time. Its thread sleeps while none is enabled, and ends
/// when this is dropped.
#[derive(Debug)]
pub struct RtcTimer {
    rtc: Arc<Mutex<Rtc>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RtcTimer {
    /// The name of its thread.
    pub(crate) const THREAD: &str = "rtc";

    /// Starts the thread for `rtc`, which calls `begin` before anything else.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub fn start(rtc: Arc<Mutex<Rtc>>, begin: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name(Self::THREAD.into()).spawn({
            let (rtc, stop) = (rtc.clone(), stop.clone());
            move || {
                begin();
                run(&rtc, &stop);
            }
        })?;
        Ok(Self { rtc, stop, thread: Some(thread) })
    }
}

fn run(rtc: &Mutex<Rtc>, stop: &AtomicBool) {
    let mut rtc = rtc.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = rtc.changed.clone();
    while !stop.load(Ordering::Relaxed) {
        rtc.poll();
        rtc = match rtc.next_interrupt() {
            Some(after) => {
                changed.wait_timeout(rtc, after).unwrap_or_else(PoisonError::into_inner).0
            }
            None => changed.wait(rtc).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

impl Drop for RtcTimer {
    fn drop(&mut self) {
        // Under the lock, or the flag could fall between the thread's look at it and its wait.
        let rtc = self.rtc.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.store(true, Ordering::Relaxed);
        rtc.changed.notify_all();
        drop(rtc);
        if let Some(thread) = self.thread.take() {
            // The thread has no result to tell.
            let _ = thread.join();
        }
    }
}
