//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.

mod ack;
mod answers;
mod await_event;
mod batch;
mod best_effort;
mod bootstrap;
mod concurrent;
mod dead_letter;
mod delays;
mod isolate;
mod key;
mod lanes;
mod poll;
mod rate_limit;
mod read_through;
mod redrive;
mod retry;
mod run_forever;
mod shards;
mod window;
mod workers;

pub use self::{
    ack::{AckConsumer, AckEvent, ack},
    await_event::{await_event, await_event_or},
    batch::{Batch, batch, batch_by_len, batch_by_period},
    best_effort::{BestEffort, best_effort},
    bootstrap::{Bootstrap, bootstrap},
    concurrent::concurrent,
    dead_letter::{DeadLetterConsumer, dead_letter},
    delays::exponential,
    key::Key,
    lanes::{keyed_lanes, keyed_lanes_with},
    poll::{PollSource, poll_source},
    rate_limit::{RateLimit, rate_limit},
    read_through::{ReadThrough, read_through},
    redrive::{Redriven, redrive},
    retry::{Retry, RetryDecision, retry},
    run_forever::{RunForever, run_forever},
    shards::{Shard, shard, shard_specs, shards},
    workers::Workers,
};
