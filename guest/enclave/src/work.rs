//! Work that several threads do at once and that interrupts break into.

use core::hint;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_sha256::Sha256;

/// How many threads have come to [`wait_for`].
static ARRIVED: AtomicU64 = AtomicU64::new(0);

/// Waits until `threads` threads are in the enclave at the same time: none leaves
/// before the last has come.
pub(crate) fn wait_for(threads: u64) {
    ARRIVED.fetch_add(1, Ordering::SeqCst);
    while ARRIVED.load(Ordering::SeqCst) < threads {
        hint::spin_loop();
    }
}

/// Counts the AEXs of a thread: each writes RIP to the thread's SSA frame, where
/// zeros lie in wait, an address at which nothing of the enclave is.
pub(crate) struct Exits {
    rip: *mut u64,
    seen: u64,
}

impl Exits {
    /// # Safety
    /// `gprsgx` is the address of GPRSGX of the SSA frame that the calling thread's
    /// next AEX writes.
    pub(crate) unsafe fn of_frame(gprsgx: u64) -> Self {
        let rip = (gprsgx + 136) as *mut u64;
        // SAFETY: enclave memory that the processor reads in ERESUME only, before
        // which an AEX has overwritten it.
        unsafe { ptr::write_volatile(rip, 0) }
        Self { rip, seen: 0 }
    }

    /// How often the thread was interrupted, where AEXs between two calls count once.
    pub(crate) fn seen(&mut self) -> u64 {
        // SAFETY: who made this value vouched for the place.
        if unsafe { ptr::read_volatile(self.rip) } != 0 {
            self.seen += 1;
            // SAFETY: who made this value vouched for the place.
            unsafe { ptr::write_volatile(self.rip, 0) }
        }
        self.seen
    }
}

/// Hashes the thread's number, then digest after digest, until there were so many
/// AEXs. Returns the number of hashes and the last digest.
pub(crate) fn until(thread: u64, exits: &mut Exits, wanted: u64) -> (u64, [u8; 32]) {
    let mut digest = hash(&thread.to_le_bytes());
    let mut rounds = 1;
    while exits.seen() < wanted {
        digest = hash(&digest);
        rounds += 1;
    }
    (rounds, digest)
}

fn hash(data: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::default();
    hash.update(data);
    hash.finish()
}
