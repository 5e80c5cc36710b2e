//! The obligations of a source, of a cursor store and of a store of dead letters as test cases.
//!
//! An implementation calls [`stream_func`], [`cursor_store`] or [`dead_letters()`] from its integration tests, with a factory that makes an
//! empty namespace for each case and with what it is capable of. What it is not capable of it has to refuse: a capability
//! that is switched off is tested too.

mod cursors;
mod dead_letters;
mod runner;
mod streams;

pub use self::{
    cursors::{CursorCapabilities, CursorHarness, cursor_store},
    dead_letters::{DeadLetterCapabilities, DeadLetterHarness, dead_letters},
    streams::{StreamCapabilities, StreamHarness, stream_func},
};
