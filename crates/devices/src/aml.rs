//! What the DSDT says of devices, in AML (ACPI 6.4, chapter 20).

use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ResourceTemplate};
use acpi_tables::{Aml, AmlSink};

use crate::node::{Node, Place};

/// AML that is put together already.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AmlBytes(Vec<u8>);

impl AmlBytes {
    /// The encoding of `term`.
    #[must_use]
    pub fn of(term: &dyn Aml) -> Self {
        let mut bytes = Vec::new();
        term.to_aml_bytes(&mut bytes);
        Self(bytes)
    }

    /// A device of this name, of four characters, in the scope that it is put into.
    #[must_use]
    pub fn device(name: &str, children: Vec<&dyn Aml>) -> Self {
        Self::of(&Device::new(name.into(), children))
    }

    /// Appends a term.
    pub fn push(&mut self, term: &dyn Aml) {
        term.to_aml_bytes(&mut self.0);
    }
}

impl Aml for AmlBytes {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// What the DSDT says of a device with registers and an interrupt.
pub(crate) struct AcpiDevice<'a> {
    /// Its name in `\_SB`: four characters.
    pub(crate) name: &'a str,
    /// `_HID`: an EISA ID (three letters and four digits) or an ACPI ID.
    pub(crate) hid: &'static str,
    /// `_UID`, where there may be several with one `_HID`.
    pub(crate) uid: Option<u32>,
    /// Whether its interrupt is edge triggered; level otherwise. It is active high and not shared.
    pub(crate) edge: bool,
}

impl AcpiDevice<'_> {
    /// Its AML, with the registers and the interrupt that `node` has.
    pub(crate) fn aml(&self, node: &Node) -> AmlBytes {
        let mut resources = AmlBytes::default();
        match node.place {
            Some(Place::Ports { first, len }) => {
                let len = u8::try_from(len).expect("a device has at most 255 ports");
                resources.push(&IO::new(first, first, 1, len));
            }
            Some(Place::Memory { base, len }) => {
                let below_4_gib = |value| u32::try_from(value).expect("registers lie below 4 GiB");
                resources.push(&Memory32Fixed::new(true, below_4_gib(base), below_4_gib(len)));
            }
            None => {}
        }
        if let Some(gsi) = node.gsi {
            resources.push(&Interrupt::new(true, self.edge, false, false, gsi));
        }
        let resources = ResourceTemplate::new(vec![&resources]);
        // An EISA ID has seven characters, an ACPI ID eight.
        let eisa = (self.hid.len() == 7).then(|| EISAName::new(self.hid));
        let hid: &dyn Aml = eisa.as_ref().map_or(&self.hid, |eisa| eisa);
        let hid = Name::new("_HID".into(), hid);
        let uid = self.uid.map(|uid| Name::new("_UID".into(), &uid));
        let crs = Name::new("_CRS".into(), &resources);
        let mut children: Vec<&dyn Aml> = vec![&hid];
        children.extend(uid.as_ref().map(|uid| uid as &dyn Aml));
        children.push(&crs);
        AmlBytes::device(self.name, children)
    }
}
