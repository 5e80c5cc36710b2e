//! The targets, over their stored inputs and over mutations of them.

use fuzz_targets::{cursor, event_message, explore, names, request_message, status, trace};

#[test]
fn cursors() {
    explore("cursor", cursor);
}

#[test]
fn traces() {
    explore("trace", trace);
}

#[test]
fn event_messages() {
    explore("event_message", event_message);
}

#[test]
fn request_messages() {
    explore("request_message", request_message);
}

#[test]
fn statuses() {
    explore("status", status);
}

#[test]
fn names_of_tables_and_columns() {
    explore("names", names);
}
