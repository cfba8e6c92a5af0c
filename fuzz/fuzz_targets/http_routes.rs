#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sluice::proto::http::fuzzing::routes(data));
