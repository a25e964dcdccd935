//! EINIT with any SIGSTRUCT.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::sigstruct(data));
