//! Drives the compiled command as a user would.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a random test tells its seed")]

mod bad_input;
mod cursors;
mod demo;
mod demo_file;
mod demo_kill;
mod demo_serve;
mod errors;
mod history;
mod import;
mod reflex;
mod repository;
mod servers;
mod tail;
