//! A family of rows per file.

mod engine;
mod fan_out;
mod gaps;
mod idle;
mod insert;
mod latency;
mod memory;
mod patterns;
mod read;
mod transactional;

use anyhow::{Context, Result};

use crate::bench::Bench;

type Family = fn(&Bench) -> Result<()>;

const FAMILIES: [(&str, Family); 10] = [
    ("engine", engine::rows),
    ("read", read::rows),
    ("fan-out", fan_out::rows),
    ("idle", idle::rows),
    ("patterns", patterns::rows),
    ("transactional", transactional::rows),
    ("insert", insert::rows),
    ("latency", latency::rows),
    ("gaps", gaps::rows),
    ("memory", memory::rows),
];

/// The ids of all rows, in the order of the table.
pub(crate) fn ids() -> Result<Vec<String>> {
    let bench = Bench::noting()?;
    measure(&bench)?;
    Ok(bench.into_noted())
}

/// Measures all rows that are asked for.
///
/// # Errors
///
/// If one of them cannot be measured.
pub fn measure(bench: &Bench) -> Result<()> {
    FAMILIES.iter().try_for_each(|(name, rows)| rows(bench).with_context(|| format!("measure the rows of `{name}`")))
}
