//! A VMCS region: 4 KiB of guest memory, of which software knows the first 8 bytes
//! (SDM Vol. 3C, 24.2). Each field has 8 bytes at a place that follows from its encoding.

use cloister_x86::vmcs::{Field, Width};

use crate::cpu::Cpu;
use crate::mem::physical::PhysicalPage;

/// VMCS revision identifier.
pub(crate) const REVISION: u32 = 1;
/// Shadow-VMCS indicator, beside the revision identifier.
pub(crate) const SHADOW: u32 = 1 << 31;
/// Bytes of a region.
pub(crate) const SIZE: usize = 4096;

/// VMCS link pointer where there is no link.
pub(crate) const NO_LINK: u64 = u64::MAX;

/// The second quadword: the launch state.
const LAUNCH_STATE: usize = 8;
const LAUNCHED: u64 = 1;
/// Where fields begin.
const FIELDS: usize = 64;
/// Places for the fields of one width and kind.
const PLACES: usize = 28;

const _: () = {
    assert!(FIELDS + 8 * PLACES * Field::GROUPS <= SIZE);
    let mut n = 0;
    while n < Field::ALL.len() {
        assert!((Field::ALL[n].index() as usize) < PLACES);
        n += 1;
    }
};

/// Where a field is.
#[inline(always)]
const fn place(field: Field) -> usize {
    FIELDS + 8 * (field.group() * PLACES + field.index() as usize)
}

/// What VMREAD and VMWRITE access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Component {
    pub(crate) field: Field,
    /// The high half of a 64-bit field alone.
    high: bool,
}

impl Component {
    /// What an encoding, the operand of VMREAD and VMWRITE, names.
    pub(crate) fn of(encoding: u64) -> Option<Self> {
        let encoding = u32::try_from(encoding).ok()?;
        let high = encoding & 1 != 0;
        let field = Field::of(encoding & !1)?;
        (!high || field.width() == Width::Bits64).then_some(Self { field, high })
    }
}

/// A VMCS region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'a>(PhysicalPage<'a>);

impl Cpu {
    /// The region at `address`.
    pub(crate) fn vmcs(&self, address: u64) -> Region<'_> {
        Region(self.physical_page(address))
    }
}

impl Region<'_> {
    /// The first doubleword: revision identifier and [`SHADOW`].
    pub(crate) fn revision(self) -> u32 {
        self.0.read(0) as u32
    }

    /// Whether it is a shadow VMCS, which VM entry does not take.
    pub(crate) fn is_shadow(self) -> bool {
        self.revision() & SHADOW != 0
    }

    /// Reports a VMX abort.
    pub(crate) fn set_abort(self, indicator: u32) {
        self.0.write(0, u64::from(self.revision()) | u64::from(indicator) << 32);
    }

    /// Whether the launch state is "launched" (SDM Vol. 3C, 24.1).
    pub(crate) fn is_launched(self) -> bool {
        self.0.read(LAUNCH_STATE) == LAUNCHED
    }

    /// Sets the launch state.
    pub(crate) fn set_launched(self, launched: bool) {
        self.0.write(LAUNCH_STATE, if launched { LAUNCHED } else { 0 });
    }

    /// Reads a field.
    #[inline(always)]
    pub(crate) fn read(self, field: Field) -> u64 {
        self.0.read(place(field))
    }

    /// Reads a field of at most 32 bits.
    #[inline(always)]
    pub(crate) fn read_32(self, field: Field) -> u32 {
        self.read(field) as u32
    }

    /// Writes a field; bits that it does not have are dropped.
    #[inline(always)]
    pub(crate) fn write(self, field: Field, value: u64) {
        let value = match field.width() {
            Width::Bits16 => value & 0xffff,
            Width::Bits32 => value & 0xffff_ffff,
            Width::Bits64 | Width::Natural => value,
        };
        self.0.write(place(field), value);
    }

    /// VMREAD.
    pub(crate) fn load(self, component: Component) -> u64 {
        let value = self.read(component.field);
        if component.high { value >> 32 } else { value }
    }

    /// VMWRITE of an operand of `operand_bits` bits, 32 or 64, of which the field keeps the rest.
    pub(crate) fn store(self, component: Component, value: u64, operand_bits: u32) {
        let value = match (component.field.width(), component.high) {
            (Width::Bits64, true) => value << 32 | self.read(component.field) & 0xffff_ffff,
            // Outside 64-bit mode the access is to the low half, and clears the high one
            // (SDM Vol. 3C, 24.11.2).
            _ if operand_bits == 32 => value & 0xffff_ffff,
            _ => value,
        };
        self.write(component.field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_place_of_its_own() {
        let mut places: Vec<usize> = Field::ALL.iter().map(|&field| place(field)).collect();
        places.sort_unstable();
        places.dedup();

        assert_eq!(places.len(), Field::ALL.len());
        assert!(places.iter().all(|place| *place >= FIELDS && place + 8 <= SIZE));
    }

    #[test]
    fn encodings_without_a_field_name_nothing() {
        let of = |encoding| Component::of(encoding).map(|component| component.field);
        for &field in Field::ALL {
            assert_eq!(of(u64::from(field.encoding())), Some(field));
            let high = of(u64::from(field.encoding() | 1));
            assert_eq!(high.is_some(), field.width() == Width::Bits64, "{field:?}");
        }
        for encoding in [0x4, 0x814, 0x1000, 0x8000, 0x2034, 0x4830, 0x682a, 0x7000, 1 << 32] {
            assert_eq!(of(encoding), None, "{encoding:#x}");
        }
        let named = (0..0x1_0000).filter(|&encoding| of(encoding).is_some()).count();
        let halves = Field::ALL.iter().filter(|field| field.width() == Width::Bits64).count();
        assert_eq!(named, Field::ALL.len() + halves);
    }
}
