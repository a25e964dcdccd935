//! VMDK images that anybody may have written.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::vmdk(data));
