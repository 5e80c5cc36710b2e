use std::{env, time::Duration};

use anyhow::{Context, Result};

const SEED: &str = "REFLEX_CHAOS_SEED";
const SECONDS: &str = "REFLEX_CHAOS_SECONDS";

/// The seed of this run, from the environment or at random, and printed.
///
/// # Errors
///
/// If the environment holds something that is no number.
#[expect(clippy::print_stderr, reason = "a failed test shows it")]
pub fn seed(test: &str) -> Result<u64> {
    let seed = number(SEED)?.unwrap_or_else(rand::random);
    eprintln!("{test}: {SEED}={seed}");
    Ok(seed)
}

/// How long a chaos test goes on.
///
/// # Errors
///
/// If the environment holds something that is no number.
pub fn duration(default: Duration) -> Result<Duration> {
    Ok(number(SECONDS)?.map_or(default, Duration::from_secs))
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(value) = env::var(variable) else { return Ok(None) };
    value.parse().map(Some).with_context(|| format!("{variable}={value} is not a number"))
}
