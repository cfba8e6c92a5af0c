#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| sluice::net::addr::fuzz(data));
