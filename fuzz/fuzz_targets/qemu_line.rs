//! Any line of QEMU's options.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::qemu_line(data));
