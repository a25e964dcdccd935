//! Pages of physical memory that hold structures of the processor's own, such as a VMCS.

use std::marker::PhantomData;

use cloister_x86::Gpa;

use super::translate::ram_bytes;
use crate::cpu::Cpu;
use crate::phys::{PhysPage, RamPage};

/// A page of physical memory. What is not RAM reads as all ones and takes no writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalPage<'a> {
    ram: Option<RamPage>,
    /// The page lives as long as the processor's map.
    processor: PhantomData<&'a Cpu>,
}

impl Cpu {
    /// The page that holds `address`.
    pub(crate) fn physical_page(&self, address: u64) -> PhysicalPage<'_> {
        let ram = match self.package.memory.page(Gpa(address & !0xfff)) {
            PhysPage::Ram(ram) => Some(ram),
            _ => None,
        };
        PhysicalPage { ram, processor: PhantomData }
    }
}

impl PhysicalPage<'_> {
    /// Reads the 8 aligned bytes at `offset`, of which the low 12 bits count.
    #[inline(always)]
    pub(crate) fn read(&self, offset: usize) -> u64 {
        self.ram.map_or(u64::MAX, |ram| ram_bytes(&ram, offset as u64 & 0xff8).load())
    }

    /// Reads the 4 aligned bytes at `offset`, of which the low 12 bits count.
    pub(crate) fn read_32(&self, offset: usize) -> u32 {
        self.ram.map_or(u32::MAX, |ram| ram_bytes(&ram, offset as u64 & 0xffc).load())
    }

    /// Reads the byte at `offset`, of which the low 12 bits count.
    pub(crate) fn byte(&self, offset: usize) -> u8 {
        self.read(offset).to_le_bytes()[offset & 7]
    }

    /// Writes the 8 aligned bytes at `offset`, of which the low 12 bits count.
    #[inline(always)]
    pub(crate) fn write(&self, offset: usize, value: u64) {
        if let Some(ram) = self.ram.filter(|ram| ram.writable) {
            ram_bytes(&ram, offset as u64 & 0xff8).store(value);
        }
    }

    /// Writes the 4 aligned bytes at `offset`, of which the low 12 bits count.
    pub(crate) fn write_32(&self, offset: usize, value: u32) {
        if let Some(ram) = self.ram.filter(|ram| ram.writable) {
            ram_bytes(&ram, offset as u64 & 0xffc).store(value);
        }
    }

    /// Replaces the 8 aligned bytes at `offset`, of which the low 12 bits count, by `f` of them in one
    /// atomic step, and returns the old ones.
    pub(crate) fn update(&self, offset: usize, f: impl FnMut(u64) -> u64) -> u64 {
        let ram = self.ram.filter(|ram| ram.writable);
        let old = ram.and_then(|ram| ram_bytes(&ram, offset as u64 & 0xff8).update(f));
        old.unwrap_or_else(|| self.read(offset))
    }
}
