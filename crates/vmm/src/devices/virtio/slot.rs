//! Where a virtio-mmio device sits: what the DSDT tells the guest about it.

/// The resources of one virtio-mmio device (`LNRO0005` in the DSDT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MmioSlot {
    /// Guest-physical address of its registers.
    pub base: u64,
    /// Bytes of its registers.
    pub len: u64,
    /// Global system interrupt: level-triggered, active high, not shared.
    pub gsi: u32,
}

impl MmioSlot {
    /// Bytes of a device's registers: 100H of transport, then its configuration space.
    pub const LEN: u64 = 0x200;
    /// Distance from one device's registers to the next one's: a page.
    pub const SPACING: u64 = 0x1000;

    /// The `index`-th slot of a row that starts at `base` with interrupt `first_gsi`.
    pub fn nth(base: u64, first_gsi: u32, index: u32) -> Self {
        Self {
            base: base + u64::from(index) * Self::SPACING,
            len: Self::LEN,
            gsi: first_gsi + index,
        }
    }
}
