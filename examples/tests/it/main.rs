//! Runs each example as a user would and compares what it prints.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod http;
mod outbox;
mod program;
mod services;
mod short;
