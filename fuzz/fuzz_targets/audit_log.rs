//! The target `audit_log` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codegen_fuzz_targets::audit_log(data));
