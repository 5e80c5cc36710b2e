//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.

mod answers;
mod batch;
mod best_effort;
mod concurrent;
mod dead_letter;
mod delays;
mod isolate;
mod key;
mod lanes;
mod redrive;
mod retry;
mod shards;
mod window;
mod workers;

pub use self::best_effort::{BestEffort, best_effort};
pub use self::dead_letter::{DeadLetterConsumer, dead_letter};
pub use self::delays::exponential;
pub use self::redrive::{Redriven, redrive};
pub use self::retry::{Retry, RetryDecision, retry};
pub use self::batch::{Batch, batch, batch_by_len, batch_by_period};
pub use self::concurrent::concurrent;
pub use self::key::Key;
pub use self::lanes::{keyed_lanes, keyed_lanes_with};
pub use self::shards::{Shard, shard, shard_specs, shards};
pub use self::workers::Workers;
