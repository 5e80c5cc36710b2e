//! Everything that continuous integration checks.

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::packages::{self, Package};
use crate::runner::Runner;
use crate::test;

/// Runs all steps, up to the first that fails.
pub(crate) fn run(runner: &Runner) -> Result<()> {
    let packages = packages::published(runner)?;
    let mut steps = Steps::default();
    let outcome = run_steps(runner, &packages, &mut steps);
    steps.summarize();
    outcome
}

fn run_steps(runner: &Runner, packages: &[Package], steps: &mut Steps) -> Result<()> {
    steps.run("format", || cargo(runner, &["fmt", "--all", "--check"]))?;
    steps.run("lints", || {
        cargo(runner, &["clippy", "--workspace", "--all-features", "--all-targets", "--", "--deny", "warnings"])
    })?;
    steps.run("nothing blocks a thread", || check_blocking(runner, packages))?;
    steps.run("documentation", || document(runner))?;
    // The examples are run, and their output compared, by tests of their own package.
    steps.run("tests and examples", || test::run(runner, &[]))?;
    steps.run("each feature alone", || check_features(runner, packages))?;
    steps.run("fuzz targets", || check_fuzz_targets(runner))?;
    steps.run("packages", || package(runner, packages))
}

fn cargo(runner: &Runner, args: &[&str]) -> Result<()> {
    runner.run(runner.cargo().args(args))
}

/// Checks the libraries alone: tests and programs may block, in threads of their own.
fn check_blocking(runner: &Runner, packages: &[Package]) -> Result<()> {
    let mut cargo = runner.cargo();
    cargo.env("CLIPPY_CONF_DIR", concat!(env!("CARGO_MANIFEST_DIR"), "/libraries"));
    cargo.args(["clippy", "--lib", "--all-features"]);
    cargo.args(packages.iter().map(|package| format!("--package={}", package.name)));
    runner.run(cargo.args(["--", "--deny", "warnings"]))
}

fn document(runner: &Runner) -> Result<()> {
    let mut cargo = runner.cargo();
    cargo.args(["doc", "--workspace", "--all-features", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings");
    runner.run(&mut cargo)
}

/// Checks each published package without any feature and with each by itself.
fn check_features(runner: &Runner, packages: &[Package]) -> Result<()> {
    for Package { name, features } in packages {
        let alone = ["check", "--quiet", "--no-default-features", "--package", name];
        for feature in features.iter().map(Some).chain([None]) {
            let shown = feature.map_or("none", String::as_str);
            eprintln!("{name}, features: {shown}");
            let mut cargo = runner.cargo();
            cargo.args(alone).args(feature.map(|feature| format!("--features={feature}")));
            runner.run(&mut cargo).with_context(|| format!("package `{name}` with features: {shown}"))?;
        }
    }
    Ok(())
}

/// Checks the workspace of cargo-fuzz, without the nightly toolchain that runs it.
fn check_fuzz_targets(runner: &Runner) -> Result<()> {
    let mut cargo = runner.cargo();
    cargo.args(["check", "--manifest-path", "fuzz/Cargo.toml", "--locked"]);
    runner.run(cargo.env("RUSTFLAGS", "--cfg fuzzing"))
}

/// Packages what is published, and builds it from the packages alone: in a folder of its own, because cargo unpacks and builds a
/// package of the workspace once for each path and version, and takes it for the same from then on.
fn package(runner: &Runner, packages: &[Package]) -> Result<()> {
    let target = tempfile::tempdir().context("make a folder to build packages in")?;
    let mut cargo = runner.cargo();
    cargo
        .arg("package")
        .arg("--target-dir")
        .arg(target.path())
        .args(packages.iter().map(|package| format!("--package={}", package.name)));
    if env::var_os("CI").is_none_or(|ci| ci != "true") {
        cargo.arg("--allow-dirty");
    }
    runner.run(&mut cargo)
}

/// The steps that have run, with their durations.
#[derive(Debug, Default)]
struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = step();
        let duration = start.elapsed();
        eprintln!("== {name}: {} s", duration.as_secs());
        self.done.push((name, duration, outcome.is_ok()));
        outcome.with_context(|| format!("step `{name}` failed"))
    }

    fn summarize(&self) {
        eprintln!("\n== summary");
        for (name, duration, succeeded) in &self.done {
            let outcome = if *succeeded { "ok" } else { "FAILED" };
            eprintln!("{name:<20} {:>6} s  {outcome}", duration.as_secs());
        }
        let total: Duration = self.done.iter().map(|(_, duration, _)| *duration).sum();
        eprintln!("{:<20} {:>6} s", "total", total.as_secs());
    }
}
