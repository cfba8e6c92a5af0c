#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| sluice::config::fuzz(data));
