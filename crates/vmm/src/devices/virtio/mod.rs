//! virtio devices behind the virtio-mmio transport.

mod slot;

pub use slot::MmioSlot;
