//! The request to a boot's devices to leave off what they are doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whoever does long work for the guest that the boot is to end. A guest can ask a device for
/// hours of work at once, so work is done in pieces with a look at this before each. A clone is the
/// same request.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    /// Asks to leave off.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether work is to be left off.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
