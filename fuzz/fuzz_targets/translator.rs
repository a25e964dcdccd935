//! The translator, next to the interpreter.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloister_fuzz::translator(data));
