//! Feeds `number` from libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ayova_fuzz::number::run(data));
