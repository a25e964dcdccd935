//! Where a virtio-mmio device sits.

use crate::devices::{AcpiDevice, Node};
use crate::layout::{VIRTIO_GSI, VIRTIO_MMIO_BASE};

/// Bytes of a device's registers: 100H of transport, then its configuration space.
const LEN: u64 = 0x200;
/// Distance from one device's registers to the next one's: a page.
const SPACING: u64 = 0x1000;

/// The `index`-th virtio-mmio device, which is a `kind`. Its interrupt is level triggered: asserted
/// until InterruptACK.
#[must_use]
pub fn node(index: u32, kind: &str) -> Node {
    let base = VIRTIO_MMIO_BASE + u64::from(index) * SPACING;
    Node {
        gsi: Some(VIRTIO_GSI + index),
        acpi: Some(AcpiDevice {
            name: format!("VR{index:02X}"),
            hid: "LNRO0005",
            uid: Some(index),
            edge: false,
        }),
        ..Node::in_memory(&format!("virtio{index}-{kind}"), base, LEN)
    }
}
