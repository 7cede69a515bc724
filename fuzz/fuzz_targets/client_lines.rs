//! The target `client_lines` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codegen_fuzz_targets::client_lines(data));
