//! The state in which the bootstrap processor enters a kernel.

use cloister_x86::paging::Pte;
use cloister_x86::regs::{Cr0, Cr4, Efer};
use cloister_x86::{Rights, Segment};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::placement::{GDT, PAGE_TABLES, STACK_TOP};

/// Selector of the code segment that the boot protocol prescribes (`__BOOT_CS`).
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segments (`__BOOT_DS`).
const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
const TASK_SELECTOR: u16 = 0x20;

/// Access rights of a flat 64-bit code segment: present, readable, accessed, L, G.
const CODE64_RIGHTS: Rights = Rights(0xa09b);
/// Access rights of a flat 32-bit code segment: present, readable, accessed, D, G.
const CODE32_RIGHTS: Rights = Rights(0xc09b);
/// Access rights of a flat data segment: present, writable, accessed, B, G.
const DATA_RIGHTS: Rights = Rights(0xc093);
/// Access rights of a busy 32-bit TSS.
const TASK_RIGHTS: Rights = Rights(0x008b);

/// Registers of the bootstrap processor at the kernel's entry. What is not named is zero, and
/// RFLAGS is 2: interrupts are off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryState {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// RBX: PVH passes `hvm_start_info` in it.
    pub rbx: u64,
    /// RSI: Linux passes `boot_params` in it.
    pub rsi: u64,
    /// CR0.
    pub cr0: Cr0,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// CS.
    pub cs: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR base.
    pub gdt_base: u64,
    /// GDTR limit.
    pub gdt_limit: u16,
}

impl EntryState {
    /// 64-bit mode with the first 4 GiB mapped one to one, as the Linux 64-bit boot protocol asks.
    /// Writes the page tables and the GDT.
    ///
    /// # Errors
    ///
    /// RAM that does not reach to the end of the page tables, 60 KiB.
    pub fn long_mode(
        ram: &GuestMemoryMmap,
        rip: u64,
        boot_params: u64,
    ) -> Result<Self, GuestMemoryError> {
        write_identity_map(ram)?;
        Self {
            rip,
            rsp: STACK_TOP,
            rbx: 0,
            rsi: boot_params,
            cr0: Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG,
            cr3: PAGE_TABLES,
            cr4: Cr4::PAE,
            efer: Efer::LME | Efer::LMA,
            cs: Segment::flat(CODE_SELECTOR, CODE64_RIGHTS),
            data: Segment::flat(DATA_SELECTOR, DATA_RIGHTS),
            tr: Segment { selector: TASK_SELECTOR, base: 0, limit: 0x67, rights: TASK_RIGHTS },
            gdt_base: 0,
            gdt_limit: 0,
        }
        .with_gdt(ram)
    }

    /// 32-bit protected mode without paging, flat segments. Writes the GDT.
    pub(super) fn protected_mode(
        ram: &GuestMemoryMmap,
        eip: u32,
        ebx: u64,
        esi: u64,
    ) -> Result<Self, GuestMemoryError> {
        Self {
            rip: u64::from(eip),
            rsp: 0,
            rbx: ebx,
            rsi: esi,
            cr0: Cr0::PE | Cr0::ET,
            cr3: 0,
            cr4: Cr4::empty(),
            efer: Efer::empty(),
            cs: Segment::flat(CODE_SELECTOR, CODE32_RIGHTS),
            data: Segment::flat(DATA_SELECTOR, DATA_RIGHTS),
            tr: Segment { selector: TASK_SELECTOR, base: 0, limit: 0x67, rights: TASK_RIGHTS },
            gdt_base: 0,
            gdt_limit: 0,
        }
        .with_gdt(ram)
    }

    /// Writes the descriptors of the segments to the GDT and names it in GDTR.
    fn with_gdt(mut self, ram: &GuestMemoryMmap) -> Result<Self, GuestMemoryError> {
        const ENTRIES: u16 = 5;
        let mut gdt = [0_u64; ENTRIES as usize];
        for segment in [self.cs, self.data, self.tr] {
            gdt[usize::from(segment.selector >> 3)] = segment.descriptor();
        }
        for (index, descriptor) in (0_u64..).zip(gdt) {
            ram.write_obj(descriptor, GuestAddress(GDT + index * 8))?;
        }
        self.gdt_base = GDT;
        self.gdt_limit = 8 * ENTRIES - 1;
        Ok(self)
    }
}

/// Maps the first 4 GiB one to one with 2 MiB pages.
fn write_identity_map(ram: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    let table = (Pte::PRESENT | Pte::WRITE).bits();
    let pointers = PAGE_TABLES + 0x1000;
    let directories = PAGE_TABLES + 0x2000;
    ram.write_slice(&[0; 0x2000], GuestAddress(PAGE_TABLES))?;
    ram.write_obj(pointers | table, GuestAddress(PAGE_TABLES))?;
    for directory in 0..4_u64 {
        let address = directories + directory * 0x1000;
        ram.write_obj(address | table, GuestAddress(pointers + directory * 8))?;
    }
    for page in 0..4 * 512_u64 {
        let entry = page << 21 | table | Pte::PAGE_SIZE.bits();
        ram.write_obj(entry, GuestAddress(directories + page * 8))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::machine;

    #[test]
    fn descriptors_are_linux_boot_segments() {
        // The values of the kernel's own boot GDT (arch/x86/boot/pm.c, setup_gdt) but for the
        // accessed bits, which it has set too.
        assert_eq!(Segment::flat(0x10, CODE32_RIGHTS).descriptor(), 0x00cf_9b00_0000_ffff);
        assert_eq!(Segment::flat(0x10, CODE64_RIGHTS).descriptor(), 0x00af_9b00_0000_ffff);
        assert_eq!(Segment::flat(0x18, DATA_RIGHTS).descriptor(), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn long_mode_maps_4_gib_one_to_one() {
        let (ram, _) = machine(4 << 20, &[]);

        let state = EntryState::long_mode(&ram, 0x100_0200, 0x7000).unwrap();

        for address in [0, 0x20_0000, 0x3fe0_0000, 0x4000_0000, 0xffe0_0000_u64] {
            let mut table = state.cr3;
            for shift in [39, 30] {
                let slot = GuestAddress(table + (address >> shift & 0x1ff) * 8);
                let entry: u64 = ram.read_obj(slot).unwrap();
                assert_eq!(entry & 0xfff, 3);
                table = entry & !0xfff;
            }
            let slot = GuestAddress(table + (address >> 21 & 0x1ff) * 8);
            assert_eq!(ram.read_obj::<u64>(slot).unwrap(), address | 0x83);
        }
        assert_eq!(ram.read_obj::<u64>(GuestAddress(state.cr3 + 8)).unwrap(), 0);
    }
}
