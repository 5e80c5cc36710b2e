//! What must hold for any bytes from elsewhere, and the search for bytes for which it does not.
//!
//! A *target* is a function that takes bytes, hands them to something that parses, and panics if what comes out is wrong: if
//! it changes on the way there and back, if what is accepted is not valid, if a message has control characters in it. The
//! targets of crates whose parsers are public are here; those of private parsers are in `fuzz.rs` of their crate.
//!
//! Two things call a target: [`explore`], in plain tests, with the stored inputs and with seeded mutations of them; and
//! cargo-fuzz, in the workspace in `fuzz`, which keeps its inputs in the same folders.

mod cursors;
mod explore;
mod messages;
mod mutate;
mod names;
mod statuses;
mod traces;

pub use self::{
    cursors::cursor,
    explore::explore,
    messages::{event_message, request_message},
    names::names,
    statuses::status,
    traces::trace,
};
