//! What each pattern does, in a run.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod batch;
mod support;
