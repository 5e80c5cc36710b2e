#![no_main]

#[path = "../../reflex-cli/src/demo"]
mod demo {
    pub(crate) mod log;
}
#[path = "../../reflex-cli/src/fuzz/git_log.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::git_log(data));
