//! What must hold for any bytes that the command reads. The targets panic where it does not.
//!
//! The workspace in `fuzz` includes these files by their path, because a program cannot be depended on.

mod address;
mod git_log;
mod lines;

use fuzz_targets::explore;

#[test]
fn addresses() {
    explore("address", address::address);
}

#[test]
fn outputs_of_git_log() {
    explore("git_log", git_log::git_log);
}

#[test]
fn lines_of_json() {
    explore("lines", lines::lines);
}
