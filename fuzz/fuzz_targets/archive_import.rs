//! The target `archive_import` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codegen_fuzz_targets::archive_import(data));
