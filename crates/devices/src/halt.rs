//! The request to stop what is done for the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whoever does long work for the guest to stop: because the boot is to end, the
/// driver resets the device, or the machine stops. A guest can ask a device for hours of work at once, so
/// work is done in pieces with a look at this before each. A clone is the same request.
#[derive(Clone, Debug, Default)]
pub struct Halt {
    asked: Arc<AtomicBool>,
    /// The request that is made to this one too.
    whole: Option<Arc<Self>>,
}

impl Halt {
    /// A request to a part of those whom this one is made to.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { asked: Arc::default(), whole: Some(Arc::new(self.clone())) }
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Takes the request back: work may begin again.
    pub fn withdraw(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Whether work is to stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
            || self.whole.as_ref().is_some_and(|whole| whole.requested())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_asked_by_itself_and_with_the_whole() {
        let whole = Halt::default();
        let (one, other) = (whole.part(), whole.part());

        one.request();
        assert!(one.clone().requested() && !other.requested() && !whole.requested());
        one.withdraw();
        assert!(!one.requested());
        whole.request();
        one.withdraw();

        assert!(one.requested() && other.requested());
    }
}
