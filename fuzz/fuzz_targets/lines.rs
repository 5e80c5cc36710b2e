#![no_main]

#[path = "../../reflex-cli/src/ndjson/mod.rs"]
mod ndjson;
#[path = "../../reflex-cli/src/fuzz/lines.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::lines(data));
