//! Port and memory-mapped I/O buses: who answers at which address.
//!
//! A bus is filled while the machine is put together and read-only afterwards, so vCPU threads
//! share it without a lock of its own; each device has one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// What a device does with an access that the guest makes to its registers.
///
/// `offset` counts from the start of the range that the device claimed, and `offset + data.len()`
/// never passes its end. Both calls take any size that fits: the guest chooses it, so a device
/// answers every combination without panicking.
pub trait Device: Send {
    /// Fills `data` (little endian) with what the registers at `offset` hold.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data` (little endian), written to the registers at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

impl fmt::Debug for dyn Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device")
    }
}

/// A device as a bus holds it: shared with whatever feeds it from the host's side.
pub type SharedDevice = Arc<Mutex<dyn Device>>;

/// Why a range cannot be put on a bus.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BusError {
    /// The range holds no address.
    #[error("The bus range at {base:#x} is empty")]
    Empty {
        /// First address of the range.
        base: u64,
    },
    /// The range passes the end of the address space.
    #[error("The bus range at {base:#x} of {len:#x} bytes passes the end of the address space")]
    PastEnd {
        /// First address of the range.
        base: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// Another device answers at some of these addresses.
    #[error("The bus range at {base:#x} of {len:#x} bytes overlaps the one at {other:#x}")]
    Overlap {
        /// First address of the range.
        base: u64,
        /// Its length in bytes.
        len: u64,
        /// First address of the range that is there already.
        other: u64,
    },
}

#[derive(Debug)]
struct Claim {
    base: u64,
    /// Last address, inclusive: a range may end at the top of the address space.
    last: u64,
    device: SharedDevice,
}

/// Sorted, disjoint claims on an address space whose last address is `limit`.
#[derive(Debug)]
struct Claims {
    limit: u64,
    sorted: Vec<Claim>,
}

impl Claims {
    fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<(), BusError> {
        let span = len.checked_sub(1).ok_or(BusError::Empty { base })?;
        let last = base
            .checked_add(span)
            .filter(|&last| last <= self.limit)
            .ok_or(BusError::PastEnd { base, len })?;
        let at = self.sorted.partition_point(|claim| claim.last < base);
        if let Some(next) = self.sorted.get(at).filter(|next| next.base <= last) {
            return Err(BusError::Overlap { base, len, other: next.base });
        }
        self.sorted.insert(at, Claim { base, last, device });
        Ok(())
    }

    fn find(&self, address: u64) -> Option<&Claim> {
        let at = self.sorted.partition_point(|claim| claim.last < address);
        self.sorted.get(at).filter(|claim| claim.base <= address)
    }

    /// Cuts an access of `len` bytes at `address` where it crosses from one claim to another, and
    /// calls `each` with the device, the offset in it, and the bytes of the access that it gets.
    /// Returns whether any device got a byte.
    fn split(
        &self,
        address: u64,
        len: usize,
        mut each: impl FnMut(&mut dyn Device, u64, std::ops::Range<usize>),
    ) -> bool {
        let mut claimed = false;
        let mut done = 0;
        while done < len {
            let Some(at) = address.checked_add(done as u64).filter(|&at| at <= self.limit) else {
                break;
            };
            let Some(claim) = self.find(at) else {
                done += 1;
                continue;
            };
            let rest = claim.last - at;
            let bytes = usize::try_from(rest)
                .map_or(len - done, |rest| rest.saturating_add(1).min(len - done));
            let mut device = claim.device.lock().unwrap_or_else(PoisonError::into_inner);
            each(&mut *device, at - claim.base, done..done + bytes);
            claimed = true;
            done += bytes;
        }
        claimed
    }

    fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        self.split(address, data.len(), |device, offset, bytes| {
            device.read(offset, &mut data[bytes]);
        })
    }

    fn write(&self, address: u64, data: &[u8]) -> bool {
        self.split(address, data.len(), |device, offset, bytes| device.write(offset, &data[bytes]))
    }
}

/// The 64 KiB port I/O space.
#[derive(Debug)]
pub struct IoBus(Claims);

impl IoBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self(Claims { limit: 0xffff, sorted: Vec::new() })
    }

    /// Lets `device` answer at `len` ports from `base`.
    ///
    /// # Errors
    /// The range is empty, passes port FFFFH, or overlaps another.
    pub fn insert(&mut self, base: u16, len: u16, device: SharedDevice) -> Result<(), BusError> {
        self.0.insert(base.into(), len.into(), device)
    }

    /// IN from `port`. Bytes that no device claims read as ones. Returns whether any was claimed.
    pub fn read(&self, port: u16, data: &mut [u8]) -> bool {
        self.0.read(port.into(), data)
    }

    /// OUT to `port`. Bytes that no device claims go nowhere. Returns whether any was claimed.
    pub fn write(&self, port: u16, data: &[u8]) -> bool {
        self.0.write(port.into(), data)
    }
}

impl Default for IoBus {
    fn default() -> Self {
        Self::new()
    }
}

/// The guest-physical address space, as far as it is not memory.
#[derive(Debug)]
pub struct MmioBus(Claims);

impl MmioBus {
    /// A bus with nothing on it.
    pub fn new() -> Self {
        Self(Claims { limit: u64::MAX, sorted: Vec::new() })
    }

    /// Lets `device` answer at `len` bytes from guest-physical address `base`.
    ///
    /// # Errors
    /// The range is empty, passes the end of the address space, or overlaps another.
    pub fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<(), BusError> {
        self.0.insert(base, len, device)
    }

    /// A load from `gpa`. Bytes that no device claims read as ones. Returns whether any was
    /// claimed.
    pub fn read(&self, gpa: u64, data: &mut [u8]) -> bool {
        self.0.read(gpa, data)
    }

    /// A store to `gpa`. Bytes that no device claims go nowhere. Returns whether any was claimed.
    pub fn write(&self, gpa: u64, data: &[u8]) -> bool {
        self.0.write(gpa, data)
    }

    /// Whether a device answers at `gpa`.
    pub fn claims(&self, gpa: u64) -> bool {
        self.0.find(gpa).is_some()
    }
}

impl Default for MmioBus {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each byte with its own offset and remembers the writes.
    #[derive(Default)]
    struct Recorder {
        writes: Vec<(u64, Vec<u8>)>,
    }

    impl Device for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            for (at, byte) in data.iter_mut().enumerate() {
                *byte = (offset as u8).wrapping_add(at as u8);
            }
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.writes.push((offset, data.to_vec()));
        }
    }

    #[test]
    fn access_inside_a_range_reaches_its_device_with_the_offset() {
        let device = Arc::new(Mutex::new(Recorder::default()));
        let mut bus = MmioBus::new();
        bus.insert(0x1000, 0x100, device.clone()).unwrap();

        let mut data = [0; 4];
        let read = bus.read(0x1010, &mut data);
        let wrote = bus.write(0x10fc, &[1, 2, 3, 4]);

        assert!(read && wrote);
        assert_eq!(data, [0x10, 0x11, 0x12, 0x13]);
        assert_eq!(device.lock().unwrap().writes, [(0xfc, vec![1, 2, 3, 4])]);
    }

    #[test]
    fn unclaimed_read_gives_ones_and_unclaimed_write_is_dropped() {
        let bus = IoBus::new();
        let mut data = [0; 4];

        assert!(!bus.read(0x80, &mut data));
        assert!(!bus.write(0x80, &[0; 4]));

        assert_eq!(data, [0xff; 4]);
    }

    #[test]
    fn access_over_a_gap_is_split_between_the_devices() {
        let low = Arc::new(Mutex::new(Recorder::default()));
        let high = Arc::new(Mutex::new(Recorder::default()));
        let mut bus = IoBus::new();
        bus.insert(0x70, 2, low.clone()).unwrap();
        bus.insert(0x73, 2, high.clone()).unwrap();

        let mut data = [0; 4];
        bus.read(0x70, &mut data);
        bus.write(0x71, &[1, 2, 3]);

        assert_eq!(data, [0, 1, 0xff, 0]);
        assert_eq!(low.lock().unwrap().writes, [(1, vec![1])]);
        assert_eq!(high.lock().unwrap().writes, [(0, vec![3])]);
    }

    #[test]
    fn access_past_the_last_address_does_not_wrap() {
        let first = Arc::new(Mutex::new(Recorder::default()));
        let last = Arc::new(Mutex::new(Recorder::default()));
        let mut ports = IoBus::new();
        ports.insert(0, 4, first.clone()).unwrap();
        ports.insert(0xffff, 1, last.clone()).unwrap();
        let mut memory = MmioBus::new();
        memory.insert(u64::MAX, 1, last.clone()).unwrap();

        let mut data = [0; 4];
        ports.read(0xffff, &mut data);
        assert_eq!(data, [0, 0xff, 0xff, 0xff]);
        memory.read(u64::MAX, &mut data);
        assert_eq!(data, [0, 0xff, 0xff, 0xff]);
        ports.write(0xffff, &[9, 9]);

        assert_eq!(first.lock().unwrap().writes, []);
        assert_eq!(last.lock().unwrap().writes, [(0, vec![9])]);
    }

    #[test]
    fn whole_address_space_is_one_range() {
        let device = Arc::new(Mutex::new(Recorder::default()));
        let mut bus = MmioBus::new();
        bus.insert(1, u64::MAX, device).unwrap();

        let mut data = [0; 2];
        bus.read(0, &mut data);

        assert_eq!(data, [0xff, 0]);
        assert!(!bus.claims(0) && bus.claims(u64::MAX));
    }

    #[test]
    fn ranges_that_overlap_or_do_not_fit_are_refused() {
        let device = Arc::new(Mutex::new(Recorder::default()));
        let mut bus = IoBus::new();
        bus.insert(0x100, 0x10, device.clone()).unwrap();

        let cases = [
            (0x100, 1, BusError::Overlap { base: 0x100, len: 1, other: 0x100 }),
            (0xff, 2, BusError::Overlap { base: 0xff, len: 2, other: 0x100 }),
            (0x10f, 8, BusError::Overlap { base: 0x10f, len: 8, other: 0x100 }),
            (0x90, 0x100, BusError::Overlap { base: 0x90, len: 0x100, other: 0x100 }),
            (0x200, 0, BusError::Empty { base: 0x200 }),
            (0xffff, 2, BusError::PastEnd { base: 0xffff, len: 2 }),
        ];

        for (base, len, error) in cases {
            assert_eq!(bus.insert(base, len, device.clone()), Err(error));
        }
        bus.insert(0x110, 8, device.clone()).unwrap();
        bus.insert(0xf0, 0x10, device).unwrap();
    }
}
