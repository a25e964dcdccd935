//! EINIT with any EINITTOKEN.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::einittoken(data));
