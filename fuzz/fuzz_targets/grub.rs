//! Booting by any GRUB configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::grub(data));
