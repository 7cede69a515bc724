//! The target `task_events` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| codegen_fuzz_targets::task_events(data));
