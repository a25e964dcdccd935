//! What the processors of a machine share.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloister_sgx::Platform;

use crate::crowd::Crowd;
use crate::kicker::Kicker;
use crate::phys::{CodeTrack, PhysMap};

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
        let passed = nanos(self.started.elapsed());
        passed.saturating_sub(self.skipped.load(Ordering::Relaxed))
    }

    /// Takes `time` back from the machine's clock: the last so much did not pass for the guest.
    /// Called while no processor runs, and each takes notice before it runs again: its thread is
    /// started or woken by way of a lock.
    pub fn skip(&self, time: Duration) {
        self.skipped.fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// The time stamp counter, before a processor's own offset.
    #[must_use]
    pub(crate) fn tsc(&self) -> u64 {
        const SECOND: u64 = 1_000_000_000;
        let nanos = self.nanos();
        // Without the division of 128 bits that the product of both would need.
        nanos / SECOND * self.tsc_hz + nanos % SECOND * self.tsc_hz / SECOND
    }
}

/// Nanoseconds, which 64 bits count for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Package")
            .field("processors", &self.kickers.len())
            .field("tsc_hz", &self.tsc_hz)
            .finish_non_exhaustive()
    }
}
