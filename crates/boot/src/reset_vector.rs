//! What a firmware leaves at the reset vector.
//!
//! A kernel of a hardware-reduced platform restarts through its firmware: without EFI it enters
//! real mode and jumps to F000:FFF0 (Linux `machine_real_restart`). There is no firmware here, so
//! a few instructions at that address pulse the keyboard controller's reset line.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// F000:FFF0, where real-mode software jumps to restart (SDM Vol. 3A, 9.1.4, has its alias at the
/// end of 4 GiB).
const RESET_VECTOR: GuestAddress = GuestAddress(0xf_fff0);

/// `mov al, 0xfe; out 0x64, al; hlt; jmp $-1`
const RESET_CODE: [u8; 7] = [0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd];

/// Writes the code. It lies in the range of the ACPI tables, which the memory map withholds from
/// the guest's use.
///
/// # Errors
///
/// RAM ends below it.
pub(super) fn write(ram: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    ram.write_slice(&RESET_CODE, RESET_VECTOR)
}
