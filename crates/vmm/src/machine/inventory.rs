//! The machine's list of its devices. Its buses and its DSDT are made of it, so that a device is
//! described in one place: its own file.

use thiserror::Error;

use cloister_devices::{BusError, IoBus, MmioBus, Node, Place, SharedDevice};

/// A device that cannot be placed.
#[derive(Debug, Error)]
#[error("cannot place the device {id}")]
pub struct InventoryError {
    /// The device.
    id: String,
    /// Why.
    source: BusError,
}

/// The devices of one boot, and the buses that they are on.
pub(super) struct Inventory {
    nodes: Vec<Node>,
    io: IoBus,
    mmio: MmioBus,
}

impl Inventory {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), io: IoBus::new(), mmio: MmioBus::new() }
    }

    /// Adds `device` as `node` describes it.
    pub(super) fn add(&mut self, node: Node, device: SharedDevice) -> Result<(), InventoryError> {
        let placed = match node.place {
            Place::Ports { first, len } => self.io.insert(first, len, device),
            Place::Memory { base, len } => self.mmio.insert(base, len, device),
        };
        match placed {
            Ok(()) => {
                self.nodes.push(node);
                Ok(())
            }
            Err(source) => Err(InventoryError { id: node.id, source }),
        }
    }

    /// The devices, in the order in which they were added.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// I/O ports.
    pub(super) const fn io(&self) -> &IoBus {
        &self.io
    }

    /// Device registers in guest-physical memory.
    pub(super) const fn mmio(&self) -> &MmioBus {
        &self.mmio
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::{Arc, Mutex};

    use super::*;
    use cloister_devices::Device;

    struct Nothing;

    impl Device for Nothing {
        fn read(&mut self, _offset: u64, data: &mut [u8]) {
            data.fill(0x5a);
        }

        fn write(&mut self, _offset: u64, _data: &[u8]) {}
    }

    fn nothing() -> SharedDevice {
        Arc::new(Mutex::new(Nothing))
    }

    #[test]
    fn a_device_is_on_its_bus_and_in_the_list() {
        let mut inventory = Inventory::new();
        inventory.add(Node::at_ports("ports", 0x60, 2), nothing()).unwrap();
        inventory.add(Node::in_memory("registers", 0x1000, 16), nothing()).unwrap();

        let mut byte = [0];
        assert!(inventory.io().read(0x61, &mut byte) && byte == [0x5a]);
        assert!(
            inventory.mmio().read(0x100f, &mut byte) && !inventory.mmio().read(0x1010, &mut byte)
        );
        let ids: Vec<_> = inventory.nodes().iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["ports", "registers"]);
    }

    #[test]
    fn a_device_in_the_place_of_another_is_named_and_not_listed() {
        let mut inventory = Inventory::new();
        inventory.add(Node::at_ports("first", 0x60, 2), nothing()).unwrap();

        let error = inventory.add(Node::at_ports("second", 0x61, 1), nothing()).unwrap_err();

        assert_eq!(error.to_string(), "cannot place the device second");
        assert!(error.source().is_some());
        assert_eq!(inventory.nodes().len(), 1);
    }
}
