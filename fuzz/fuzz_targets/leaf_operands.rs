//! Any leaf with any operands.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::leaf_operands(data));
