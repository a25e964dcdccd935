//! VMX operation with any contents of its structures.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::vmcs(data));
