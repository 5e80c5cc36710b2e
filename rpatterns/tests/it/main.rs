//! What each pattern does, in a run.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod ack;
mod await_event;
mod batch;
mod best_effort;
mod bootstrap;
mod checked;
mod concurrent;
mod dead_letter;
mod forwarding;
mod lanes;
mod lanes_inside;
mod poll;
mod rate_limit;
mod read_through;
mod readme;
mod redrive;
mod retry;
mod run_forever;
mod shards;
mod support;
