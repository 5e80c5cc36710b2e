//! A family of rows per file.

mod engine;
mod fan_out;
mod read;

use anyhow::{Context, Result};

use crate::bench::Bench;

type Family = fn(&Bench) -> Result<()>;

const FAMILIES: [(&str, Family); 3] = [("engine", engine::rows), ("read", read::rows), ("fan-out", fan_out::rows)];

/// Measures all rows that are asked for.
///
/// # Errors
///
/// If one of them cannot be measured.
pub fn measure(bench: &Bench) -> Result<()> {
    FAMILIES.iter().try_for_each(|(name, rows)| rows(bench).with_context(|| format!("measure the rows of `{name}`")))
}
