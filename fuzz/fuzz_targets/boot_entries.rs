//! Booting by any boot entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::boot_entries(data));
