//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.
