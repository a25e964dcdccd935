//! Guest memory as devices reach it: reads and writes by guest-physical address.

use std::fmt;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions};

use crate::halt::Halt;

/// Learns which guest memory a device wrote.
///
/// A processor that keeps decoded instructions must drop those of pages that a device overwrites,
/// as it does for the stores of its own program.
pub trait DmaObserver: Send + Sync {
    /// `len` bytes at guest-physical address `gpa` have new contents. The range is inside RAM and
    /// may cross pages.
    fn written(&self, gpa: u64, len: u64);
}

impl fmt::Debug for dyn DmaObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DmaObserver")
    }
}

/// The machine's RAM with the observer of writes to it. A clone is another handle on the same RAM.
#[derive(Clone, Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    observer: Option<Arc<dyn DmaObserver>>,
    halt: Halt,
}

impl GuestRam {
    /// RAM whose device writes go to `observer`, if there is one.
    pub fn new(memory: GuestMemoryMmap, observer: Option<Arc<dyn DmaObserver>>) -> Self {
        Self { memory, observer, halt: Halt::default() }
    }

    /// The same RAM for devices that stop when `halt` is requested.
    #[must_use]
    pub fn until(self, halt: Halt) -> Self {
        Self { halt, ..self }
    }

    /// The request to stop.
    pub(crate) fn halt(&self) -> &Halt {
        &self.halt
    }

    /// Whether a device is to abandon what it is doing with the guest's buffers.
    pub fn is_halted(&self) -> bool {
        self.halt.requested()
    }

    /// The RAM itself. Whoever writes through it reports to [`GuestRam::report`].
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Whether all of the range is RAM. An empty range is, wherever it lies.
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        let Ok(bytes) = usize::try_from(len) else { return false };
        len == 0
            || (gpa.checked_add(len).is_some()
                && self.memory.check_range(GuestAddress(gpa), bytes, Permissions::ReadWrite))
    }

    /// Fills `data` from `gpa`.
    ///
    /// # Errors
    /// The range is not all RAM; part of `data` may have been filled.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> Result<(), GuestMemoryError> {
        self.memory.read_slice(data, GuestAddress(gpa))
    }

    /// Copies `data` to `gpa` and reports it.
    ///
    /// # Errors
    /// The range is not all RAM; part of it may have been written.
    pub fn write(&self, gpa: u64, data: &[u8]) -> Result<(), GuestMemoryError> {
        let outcome = self.memory.write_slice(data, GuestAddress(gpa));
        self.report(gpa, data.len() as u64);
        outcome
    }

    /// Tells the observer of a write that went past [`GuestRam::write`].
    pub fn report(&self, gpa: u64, len: u64) {
        if let Some(observer) = &self.observer {
            observer.written(gpa, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, u64)>>);

    impl DmaObserver for Log {
        fn written(&self, gpa: u64, len: u64) {
            self.0.lock().unwrap().push((gpa, len));
        }
    }

    fn two_banks() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x1000), 0x1000),
            (GuestAddress(0x10000), 0x1000),
        ])
        .unwrap()
    }

    #[test]
    fn write_reaches_memory_and_the_observer() {
        let log = Arc::new(Log::default());
        let ram = GuestRam::new(two_banks(), Some(log.clone()));

        ram.write(0xffe, &[1, 2, 3, 4]).unwrap();
        let mut data = [0; 4];
        ram.read(0xffe, &mut data).unwrap();

        assert_eq!(data, [1, 2, 3, 4]);
        assert_eq!(*log.0.lock().unwrap(), [(0xffe, 4)]);
    }

    #[test]
    fn ranges_with_a_hole_or_an_overflow_are_not_ram() {
        let ram = GuestRam::new(two_banks(), None);

        assert!(ram.contains(0, 0x2000) && ram.contains(0x10fff, 1) && ram.contains(0x5000, 0));
        assert!(!ram.contains(0x1fff, 2));
        assert!(!ram.contains(0, 0x10001));
        assert!(!ram.contains(u64::MAX, 1));
        assert!(!ram.contains(0, u64::MAX));
        assert!(ram.read(0x1fff, &mut [0; 2]).is_err());
        assert!(ram.write(u64::MAX, &[0; 2]).is_err());
    }
}
