//! What each pattern does, in a run.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod batch;
mod checked;
mod concurrent;
mod lanes;
mod lanes_inside;
mod shards;
mod best_effort;
mod dead_letter;
mod forwarding;
mod redrive;
mod retry;
mod support;
