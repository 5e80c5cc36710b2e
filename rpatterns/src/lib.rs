//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.

mod batch;

pub use self::batch::{Batch, batch, batch_by_len, batch_by_period};
