//! Random register accesses from a seed, for the tests of every device.

use crate::bus::Device;

/// A SplitMix64 generator: one seed, one sequence, so that a failure can be run again.
pub(crate) struct Chaos(u64);

impl Chaos {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One read or write of 0 to 16 bytes anywhere in the device's `len` bytes.
    pub(crate) fn access(&mut self, device: &mut dyn Device, len: u64) {
        let offset = self.below(len);
        let size = self.below(17).min(len - offset) as usize;
        let mut data = [0; 16];
        data.fill_with(|| self.next() as u8);
        if self.next() & 1 == 0 {
            device.read(offset, &mut data[..size]);
        } else {
            device.write(offset, &data[..size]);
        }
    }
}
