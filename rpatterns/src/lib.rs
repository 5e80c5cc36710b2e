//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.

mod answers;
mod batch;
mod delays;
mod retry;

pub use self::delays::exponential;
pub use self::retry::{Retry, RetryDecision, retry};
pub use self::batch::{Batch, batch, batch_by_len, batch_by_period};
