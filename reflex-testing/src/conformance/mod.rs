//! The obligations of a source and of a cursor store as test cases.
//!
//! An implementation calls [`stream_func`] and [`cursor_store`] from its integration tests, with a factory that makes an
//! empty namespace for each case and with what it is capable of. What it is not capable of it has to refuse: a capability
//! that is switched off is tested too.

mod cursors;
mod runner;
mod streams;

pub use self::{
    cursors::{CursorCapabilities, CursorHarness, cursor_store},
    streams::{StreamCapabilities, StreamHarness, stream_func},
};
