//! What a machine's list of its devices says of one.

/// Where a device's registers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// I/O ports.
    Ports {
        /// The first.
        first: u16,
        /// How many.
        len: u16,
    },
    /// Guest-physical memory.
    Memory {
        /// Its first address.
        base: u64,
        /// Bytes.
        len: u64,
    },
}

/// How the DSDT describes a device that a guest cannot find by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiDevice {
    /// Its name in `\_SB`: four characters.
    pub name: String,
    /// `_HID`: an EISA ID (three letters and four digits) or an ACPI ID.
    pub hid: &'static str,
    /// `_UID`, where there may be several with one `_HID`.
    pub uid: Option<u32>,
    /// Whether its interrupt is edge triggered; level otherwise. It is active high and not shared.
    pub edge: bool,
}

/// A device of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name among the machine's devices.
    pub id: String,
    /// Its registers.
    pub place: Place,
    /// Global system interrupt, if it has one.
    pub gsi: Option<u32>,
    /// What the DSDT says of it, if it is to.
    pub acpi: Option<AcpiDevice>,
}

impl Node {
    /// A device without interrupt that the DSDT does not describe: `len` bytes from `base` on.
    #[must_use]
    pub fn in_memory(id: &str, base: u64, len: u64) -> Self {
        Self { id: id.to_owned(), place: Place::Memory { base, len }, gsi: None, acpi: None }
    }

    /// As [`Node::in_memory`], with `len` ports from `first` on.
    #[must_use]
    pub fn at_ports(id: &str, first: u16, len: u16) -> Self {
        Self { id: id.to_owned(), place: Place::Ports { first, len }, gsi: None, acpi: None }
    }
}
