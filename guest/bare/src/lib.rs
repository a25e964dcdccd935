//! What programs on bare metal have in common: they are booted by the PVH protocol (Xen, docs/misc/pvh.pandoc), which
//! enters them at the symbol `entry`, and write to the first serial port. `bare.ld` lays them out.
#![no_std]
#![expect(unsafe_code, reason = "ports and what the boot protocol gives have no safe form")]

mod support;

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::fmt::{Result, Write};
use core::slice;

/// The first serial port, whose other end takes all bytes at once.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> Result {
        for byte in text.bytes() {
            // SAFETY: the data register of the first serial port.
            unsafe { asm!("out dx, al", in("dx") 0x3f8_u16, in("al") byte, options(nostack)) };
        }
        Ok(())
    }
}

/// The first module: a list of `hvm_modlist_entry` is at offset 16 of `hvm_start_info`, which is at this address.
#[must_use]
pub fn first_module(start_info: u64) -> &'static [u8] {
    // SAFETY: the protocol gives both structures, and the module stays where it is.
    unsafe {
        let list = *((start_info + 16) as *const *const u64);
        slice::from_raw_parts(*list as *const u8, *list.add(1) as usize)
    }
}

/// Address and size of the first EPC section (SDM vol. 3D, 33.7.2).
#[must_use]
pub fn first_section() -> Option<(u64, u64)> {
    let has_sgx = __cpuid_count(7, 0).ebx >> 2 & 1 != 0;
    let leaf = __cpuid_count(0x12, 2);
    let wide =
        |low: u32, high: u32| u64::from(low & 0xffff_f000) | u64::from(high & 0xf_ffff) << 32;
    (has_sgx && leaf.eax & 0xf == 1).then_some((wide(leaf.eax, leaf.ebx), wide(leaf.ecx, leaf.edx)))
}

/// The values of IA32_SGXLEPUBKEYHASH0 to 3 for the SHA-256 of a signer's modulus.
#[must_use]
pub fn key_hash(digest: [u8; 32]) -> [u64; 4] {
    core::array::from_fn(|part| {
        u64::from_le_bytes(core::array::from_fn(|byte| digest[part * 8 + byte]))
    })
}
