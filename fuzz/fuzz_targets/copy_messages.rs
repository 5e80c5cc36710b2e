#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reflex_sql::fuzz::copy_messages(data));
