#![no_main]

#[path = "../../reflex-cli/src/address.rs"]
mod address;
#[path = "../../reflex-cli/src/exit.rs"]
mod exit;
#[path = "../../reflex-cli/src/place.rs"]
mod place;
#[path = "../../reflex-cli/src/table.rs"]
mod table;
#[path = "../../reflex-cli/src/fuzz/address.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::address(data));
