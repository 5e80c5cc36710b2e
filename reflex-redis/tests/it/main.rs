//! On real Redis servers: the contracts of the core, bad input, and servers that go away.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by it, and prints its seed")]

mod conformance;
mod cursors;
mod entries;
mod following;
mod outages;
mod redis_server;
mod refusals;
mod trimming;
