//! The machine's list of its devices: what each is, and how a boot makes it. Whoever has to do with all
//! devices goes through it: a boot, which makes them anew and puts them on its buses, the DSDT, and the
//! sandbox, which learns of their threads and files. A device is described in one place, its own file.

use std::{fmt, io};

use cloister_devices::{BusError, IoBus, MmioBus, Node, Place, SharedDevice};
use thiserror::Error;

/// Why a device cannot be made or placed.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// Another device is where it is to be.
    #[error("cannot place the device {id}")]
    Place {
        /// The device.
        id: String,
        /// Where the other one is.
        source: BusError,
    },
    /// The host has no further descriptor for it.
    #[error("cannot make the device {id}: raise the limit of open files (ulimit -n)")]
    Descriptor {
        /// The device.
        id: String,
        /// What the host says.
        source: io::Error,
    },
    /// The host has no thread for it.
    #[error("cannot start the thread of the device {id}")]
    Thread {
        /// The device.
        id: String,
        /// Why.
        source: io::Error,
    },
}

/// A device, if it has registers; or why there is none.
pub(super) type Made = Result<Option<SharedDevice>, InventoryError>;

/// Makes a device for one boot, which gives it `W`.
type Make<W> = Box<dyn Fn(&Node, &mut W) -> Made + Send + Sync>;

/// The devices of a machine, whose boots give them `W`.
pub(super) struct Inventory<W> {
    entries: Vec<(Node, Make<W>)>,
}

/// The buses of one boot.
#[derive(Debug, Default)]
pub(super) struct Buses {
    /// I/O ports.
    pub(super) io: IoBus,
    /// Device registers in guest-physical memory.
    pub(super) mmio: MmioBus,
}

impl<W> fmt::Debug for Inventory<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes()).finish()
    }
}

impl<W> Inventory<W> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds the device that `node` describes and `make` makes.
    pub(super) fn add(
        &mut self,
        node: Node,
        make: impl Fn(&Node, &mut W) -> Made + Send + Sync + 'static,
    ) {
        self.entries.push((node, Box::new(make)));
    }

    /// What the devices are, in the order in which they were added.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.entries.iter().map(|(node, _)| node)
    }

    /// Makes every device in its state after reset, and puts it on its bus.
    pub(super) fn make(&self, wiring: &mut W) -> Result<Buses, InventoryError> {
        let mut buses = Buses::default();
        for (node, make) in &self.entries {
            let Some(device) = make(node, wiring)? else { continue };
            let placed = match node.place {
                Some(Place::Ports { first, len }) => buses.io.insert(first, len, device),
                Some(Place::Memory { base, len }) => buses.mmio.insert(base, len, device),
                None => Ok(()),
            };
            placed.map_err(|source| InventoryError::Place { id: node.id.clone(), source })?;
        }
        Ok(buses)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::sync::{Arc, Mutex};

    use super::*;
    use cloister_devices::Device;

    /// Reads as how many devices were made before it.
    struct Numbered(u8);

    impl Device for Numbered {
        fn read(&mut self, _offset: u64, data: &mut [u8]) {
            data.fill(self.0);
        }

        fn write(&mut self, _offset: u64, _data: &[u8]) {
            self.0 = 0xee;
        }
    }

    fn numbered(_: &Node, made: &mut u8) -> Made {
        *made += 1;
        Ok(Some(Arc::new(Mutex::new(Numbered(*made)))))
    }

    #[test]
    fn a_device_is_on_its_bus_and_in_the_list() {
        let mut inventory = Inventory::new();
        inventory.add(Node::at_ports("ports", 0x60, 2), numbered);
        inventory.add(Node::in_memory("registers", 0x1000, 16), numbered);
        inventory.add(Node::new("button"), |_, _| Ok(None));

        let buses = inventory.make(&mut 0).unwrap();

        let mut byte = [0];
        assert!(buses.io.read(0x61, &mut byte) && byte == [1]);
        assert!(buses.mmio.read(0x100f, &mut byte) && byte == [2]);
        assert!(!buses.mmio.read(0x1010, &mut byte));
        let ids: Vec<_> = inventory.nodes().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["ports", "registers", "button"]);
    }

    #[test]
    fn each_boot_makes_its_devices_anew() {
        let mut inventory = Inventory::new();
        inventory.add(Node::at_ports("ports", 0x60, 2), numbered);
        let mut made = 0;

        for boot in 1..=2 {
            let buses = inventory.make(&mut made).unwrap();

            let mut byte = [0];
            buses.io.read(0x60, &mut byte);
            assert_eq!(byte, [boot]);
            buses.io.write(0x60, &[0]);
        }
    }

    #[test]
    fn a_device_in_the_place_of_another_is_named() {
        let mut inventory = Inventory::new();
        inventory.add(Node::at_ports("first", 0x60, 2), numbered);
        inventory.add(Node::at_ports("second", 0x61, 1), numbered);

        let error = inventory.make(&mut 0).unwrap_err();

        assert_eq!(error.to_string(), "cannot place the device second");
        assert!(error.source().is_some());
    }
}
