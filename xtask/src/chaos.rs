//! The chaos tests, at length.

use anyhow::Result;

use crate::runner::Runner;
use crate::servers::Servers;

/// How long each chaos test goes on, in seconds.
pub(crate) const SECONDS: &str = "REFLEX_CHAOS_SECONDS";

/// Runs each chaos test for so many minutes.
pub(crate) fn run(runner: &Runner, minutes: u64) -> Result<()> {
    let servers = Servers::start_missing(runner)?;
    let mut cargo = runner.cargo();
    cargo.args(["test", "--package=reflex-e2e", "--test=it", "--", "--include-ignored", "--nocapture"]);
    cargo.args(["--test-threads=1", "chaos::", "processes::"]);
    cargo.envs(servers.environment()).env(SECONDS, (minutes * 60).to_string());
    runner.run(&mut cargo)
}
