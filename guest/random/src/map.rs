//! What the page tables map while the hammer goes.

use core::arch::asm;

use crate::traps::APIC;

/// As much of RAM as the program is in.
const RAM: u64 = 128 << 20;
const LARGE: u64 = 2 << 20;
/// Page table entries: present and writable; for ring 3 too; a large page.
const WRITABLE: u64 = 3;
const USER: u64 = 4;
const SIZE: u64 = 0x80;

#[repr(C, align(4096))]
struct Table([u64; 512]);

static mut EPC: Table = Table([0; 512]);
static mut DEVICES: Table = Table([0; 512]);
static mut APIC_PAGE: Table = Table([0; 512]);

unsafe extern "C" {
    static mut pdpt: Table;
    static mut directory: Table;
}

/// Leaves mapped what is memory, and the local APIC. Operands of leaves come to be anything, and where they are neither RAM
/// nor EPC, KVM would have to emulate the leaf, which ends the machine.
pub(crate) fn only_memory(section: u64, size: u64) {
    // SAFETY: no other processor runs yet, and what this one uses stays mapped.
    unsafe {
        let tables =
            [&raw mut pdpt, &raw mut directory, &raw mut EPC, &raw mut DEVICES, &raw mut APIC_PAGE];
        let [pointers, first, epc, devices, apic] = tables.map(|table| &mut (*table).0);
        pointers[1..].fill(0);
        first[(RAM / LARGE) as usize..].fill(0);
        for page in (section..section + size).step_by(LARGE as usize) {
            epc[index(page, 21)] = page | WRITABLE | USER | SIZE;
        }
        pointers[index(section, 30)] = &raw const EPC as u64 | WRITABLE | USER;
        apic[index(APIC, 12)] = APIC | WRITABLE;
        devices[index(APIC, 21)] = &raw const APIC_PAGE as u64 | WRITABLE;
        pointers[index(APIC, 30)] = &raw const DEVICES as u64 | WRITABLE;
        asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _);
    }
}

/// The entry for an address in a table whose entries are for 2 to the power of `shift` bytes.
const fn index(address: u64, shift: u32) -> usize {
    (address >> shift & 511) as usize
}
