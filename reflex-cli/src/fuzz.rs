//! What must hold for any bytes that the command reads. The targets panic where it does not.
//!
//! The workspace in `fuzz` includes these files by their path, because a program cannot be depended on.

mod address;
mod lines;

use fuzz_targets::explore;

#[test]
fn addresses() {
    explore("address", address::address);
}

#[test]
fn lines_of_json() {
    explore("lines", lines::lines);
}
