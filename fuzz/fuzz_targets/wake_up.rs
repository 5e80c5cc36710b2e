#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reflex_sql::fuzz::wake_up(data));
