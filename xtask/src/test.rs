//! All tests, against private servers.

use std::process::Command;

use anyhow::Result;

use crate::install;
use crate::runner::Runner;
use crate::servers::Servers;

/// Runs the tests whose names contain one of `filters`, or all.
pub(crate) fn run(runner: &Runner, filters: &[String]) -> Result<()> {
    install::ensure_promtool(runner)?;
    let servers = Servers::start_missing(runner)?;
    let environment = servers.environment();
    for (variable, url) in &environment {
        eprintln!("{variable}={url}");
    }
    let test = |args: &[&str]| -> Command {
        let mut cargo = runner.cargo();
        cargo.args(["test", "--workspace", "--all-features", "--no-fail-fast"]).args(args).args(filters);
        cargo.envs(environment.iter().cloned());
        cargo
    };
    runner.run(&mut test(&["--lib", "--bins", "--tests", "--examples", "--", "--include-ignored"]))?;
    // By themselves, because `--include-ignored` would run the code blocks marked `ignore`.
    runner.run(&mut test(&["--doc", "--"]))
}
