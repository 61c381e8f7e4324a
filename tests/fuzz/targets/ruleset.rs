#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bindscope_fuzz::ruleset(data));
