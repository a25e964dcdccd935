//! How other threads reach a processor.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::apic::Inbox;

/// Bits of [`Kicker::events`]: what other threads ask of a processor.
pub(crate) mod event {
    /// Return [`Exit::Requested`](crate::Exit::Requested).
    pub(crate) const EXIT: u32 = 1 << 0;
    /// Drop all translations.
    pub(crate) const FLUSH_TLB: u32 = 1 << 1;
    /// The local APIC's inbox holds interrupts, an NMI, INIT or a start-up IPI.
    pub(crate) const APIC: u32 = 1 << 2;
}

/// The part of a processor that other threads reach.
#[derive(Debug, Default)]
pub struct Kicker {
    /// [`event`] bits.
    pub(crate) events: AtomicU32,
    /// Interrupts posted to the local APIC.
    pub(crate) inbox: Inbox,
    /// Whether the processor is between entry to and return from [`Vcpu::run`](crate::Vcpu::run).
    running: AtomicBool,
    /// Whether its thread sleeps, or is about to.
    sleeping: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Kicker {
    /// Posts an event and wakes the processor if it sleeps.
    pub(crate) fn post(&self, bits: u32) {
        self.events.fetch_or(bits, Ordering::SeqCst);
        // A sleeper says so before its last look at the events: one of the two sees the other.
        if !self.sleeping.load(Ordering::SeqCst) {
            return;
        }
        // Taking the lock orders the post before or after the sleeper's last look.
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Makes [`Vcpu::run`](crate::Vcpu::run) return [`Exit::Requested`](crate::Exit::Requested)
    /// soon.
    pub fn request_exit(&self) {
        self.post(event::EXIT);
    }

    /// Makes the processor drop all translations and returns when none made before the call can be
    /// used any more. Not to be called on the processor's own thread while it runs.
    pub fn flush_tlb(&self) {
        self.post(event::FLUSH_TLB);
        while self.running.load(Ordering::SeqCst)
            && self.events.load(Ordering::SeqCst) & event::FLUSH_TLB != 0
        {
            std::thread::yield_now();
        }
    }

    /// Sleeps until an event is posted or `timeout` is over.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) {
        let guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.store(true, Ordering::SeqCst);
        if self.events.load(Ordering::SeqCst) == 0 {
            match timeout {
                Some(timeout) => drop(self.wake.wait_timeout(guard, timeout)),
                None => drop(self.wake.wait(guard)),
            }
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    pub(crate) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }
}
