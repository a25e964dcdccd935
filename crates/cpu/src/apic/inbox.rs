//! What other threads leave at a local APIC, without locks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::bits::VectorSet;

/// Interrupts that other threads have posted to a local APIC, and what they need to know of it to
/// find out whether a message is for it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    requests: [AtomicU64; 4],
    /// Trigger mode of each posted vector: bit set for level.
    level: [AtomicU64; 4],
    /// NMIs, up to [`MOST_NMIS`].
    nmis: AtomicU8,
    init: AtomicBool,
    /// [`SIPI_POSTED`] | vector, or 0.
    sipi: AtomicU32,
    /// [`Addressing`] of the APIC, packed.
    addressing: AtomicU64,
}

const SIPI_POSTED: u32 = 0x100;

/// One NMI is handled and one waits for IRET; more are lost (SDM Vol. 3A, 6.7.1).
pub(super) const MOST_NMIS: u8 = 2;

/// How a local APIC is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Addressing {
    /// Globally enabled.
    pub(super) enabled: bool,
    /// x2APIC mode.
    pub(super) x2apic: bool,
    /// xAPIC cluster model (DFR), else flat.
    pub(super) cluster: bool,
    /// Logical destination register.
    pub(super) ldr: u32,
}

impl Addressing {
    fn pack(self) -> u64 {
        u64::from(self.ldr)
            | u64::from(self.enabled) << 32
            | u64::from(self.x2apic) << 33
            | u64::from(self.cluster) << 34
    }

    fn unpack(bits: u64) -> Self {
        Self {
            enabled: bits >> 32 & 1 != 0,
            x2apic: bits >> 33 & 1 != 0,
            cluster: bits >> 34 & 1 != 0,
            ldr: bits as u32,
        }
    }
}

/// Everything taken out of an [`Inbox`] at once.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) requests: VectorSet,
    pub(super) level: VectorSet,
    pub(super) nmis: u8,
    pub(super) init: bool,
    pub(super) sipi: Option<u8>,
}

/// What is in an [`Inbox`] for now.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) requests: VectorSet,
    pub(super) nmi: bool,
    pub(super) init: bool,
}

impl Inbox {
    pub(super) fn post(&self, vector: u8, level: bool) {
        let (word, bit) = (usize::from(vector >> 6), 1u64 << (vector & 63));
        // The mode first: whoever sees the request sees its mode.
        if level {
            self.level[word].fetch_or(bit, Ordering::SeqCst);
        } else {
            self.level[word].fetch_and(!bit, Ordering::SeqCst);
        }
        self.requests[word].fetch_or(bit, Ordering::SeqCst);
    }

    pub(super) fn post_nmi(&self) {
        let one_more = |nmis: u8| (nmis < MOST_NMIS).then_some(nmis + 1);
        // Err: there are as many as can be.
        let _ = self.nmis.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
    }

    pub(super) fn post_init(&self) {
        // A start-up IPI that was sent before this INIT means nothing any more.
        self.sipi.store(0, Ordering::SeqCst);
        self.init.store(true, Ordering::SeqCst);
    }

    pub(super) fn post_sipi(&self, vector: u8) {
        self.sipi.store(SIPI_POSTED | u32::from(vector), Ordering::SeqCst);
    }

    pub(super) fn publish(&self, addressing: Addressing) {
        self.addressing.store(addressing.pack(), Ordering::SeqCst);
    }

    pub(super) fn addressing(&self) -> Addressing {
        Addressing::unpack(self.addressing.load(Ordering::SeqCst))
    }

    /// What a processor that looks has of interrupts, NMIs and INIT. They stay.
    pub(super) fn peek(&self) -> Waiting {
        let mut requests = VectorSet::default();
        for (n, posted) in self.requests.iter().enumerate() {
            *requests.word_mut(n) = posted.load(Ordering::SeqCst);
        }
        Waiting {
            requests,
            nmi: self.nmis.load(Ordering::SeqCst) != 0,
            init: self.init.load(Ordering::SeqCst),
        }
    }

    pub(super) fn take(&self) -> Mail {
        let mut mail = Mail {
            requests: VectorSet::default(),
            level: VectorSet::default(),
            nmis: self.nmis.swap(0, Ordering::SeqCst),
            init: self.init.swap(false, Ordering::SeqCst),
            sipi: match self.sipi.swap(0, Ordering::SeqCst) {
                0 => None,
                posted => Some(posted as u8),
            },
        };
        for n in 0..4 {
            *mail.requests.word_mut(n) = self.requests[n].swap(0, Ordering::SeqCst);
            *mail.level.word_mut(n) = self.level[n].load(Ordering::SeqCst);
        }
        mail
    }
}
