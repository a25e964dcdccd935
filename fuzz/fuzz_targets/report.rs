//! Quotes of REPORTs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::report(data));
