//! What the processors of a machine share, and how other threads reach one of them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cloister_sgx::Platform;

use crate::apic::Inbox;
use crate::crowd::Crowd;
use crate::phys::{CodeTrack, PhysMap};

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
        drop(self.sleep.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Makes [`Vcpu::run`](crate::Vcpu::run) return [`Exit::Requested`](crate::Exit::Requested) soon.
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
        let guard = self.sleep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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

/// What the logical processors of one machine share.
pub struct Package {
    /// Guest-physical memory.
    pub(crate) memory: Arc<dyn PhysMap>,
    /// The SGX platform, where the machine has one.
    pub(crate) platform: Option<Arc<Platform>>,
    /// A kicker for each processor, by APIC ID.
    pub kickers: Vec<Arc<Kicker>>,
    /// Frequency of the time stamp counter in Hz.
    pub(crate) tsc_hz: u64,
    /// When the time stamp counter was 0.
    started: Instant,
    /// Nanoseconds since then that the machine's clock did not run.
    skipped: AtomicU64,
    /// Whether they have to share the host's cores.
    pub(crate) crowd: Crowd,
    /// Serializes locked operations that the host has no atomic instruction for.
    pub(crate) split_lock: Mutex<()>,
    /// Code tracking of EPC pages, by EPC index.
    pub(crate) epc_track: Box<[CodeTrack]>,
}

impl Package {
    /// A machine with `cpus` processors whose APIC IDs are 0 to `cpus - 1`.
    #[must_use]
    pub fn new(
        memory: Arc<dyn PhysMap>,
        platform: Option<Arc<Platform>>,
        cpus: usize,
        tsc_hz: u64,
    ) -> Arc<Self> {
        let epc_pages = platform.as_ref().map_or(0, |platform| platform.pages());
        Arc::new(Self {
            memory,
            platform,
            kickers: (0..cpus).map(|_| Arc::new(Kicker::default())).collect(),
            tsc_hz,
            started: Instant::now(),
            skipped: AtomicU64::new(0),
            crowd: Crowd::new(cpus),
            split_lock: Mutex::new(()),
            epc_track: CodeTrack::array(epc_pages),
        })
    }

    /// The machine's clock, in nanoseconds: what its time stamp counters and timers go by.
    #[must_use]
    pub(crate) fn nanos(&self) -> u64 {
        let passed = self.started.elapsed().as_nanos() as u64;
        passed.saturating_sub(self.skipped.load(Ordering::Relaxed))
    }

    /// Takes `time` back from the machine's clock: the last so much did not pass for the guest. Called
    /// while no processor runs, and each takes notice before it runs again: its thread is started or
    /// woken by way of a lock.
    pub fn skip(&self, time: Duration) {
        self.skipped.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The time stamp counter, before a processor's own offset.
    #[must_use]
    pub(crate) fn tsc(&self) -> u64 {
        (u128::from(self.nanos()) * u128::from(self.tsc_hz) / 1_000_000_000) as u64
    }
}
