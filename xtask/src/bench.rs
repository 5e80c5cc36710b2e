//! The benchmarks, with servers of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use test_servers::{MariaDb, Postgres};

use crate::install;
use crate::runner::Runner;

const POSTGRES_URL: &str = "REFLEX_BENCH_POSTGRES_URL";
const MARIADB_URL: &str = "REFLEX_BENCH_MARIADB_URL";
const PEERS: &str = "bench/peers/Cargo.toml";
const PEER_FIGURES: &str = "bench/peers/target/figures.json";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only rows whose ids contain this; can be repeated
    #[arg(long)]
    filter: Vec<String>,
    /// Measure less, for a first look
    #[arg(long)]
    quick: bool,
    /// Measure libraries with a similar purpose as well, which takes minutes to build
    #[arg(long)]
    peers: bool,
}

/// Builds, starts the servers, and measures.
pub(crate) fn run(runner: &Runner, args: &Args) -> Result<()> {
    install::ensure(runner, true, true, false)?;
    runner.run(runner.cargo().args(["build", "--release", "--package=reflex-bench"]))?;
    if args.peers {
        runner.run(runner.cargo().args(["build", "--release", "--manifest-path", PEERS]))?;
    }
    // Loaded for one row, which counts queries; elsewhere it tracks nothing.
    let postgres = Postgres::options().durable().setting("shared_preload_libraries", "pg_stat_statements");
    let postgres = postgres.setting("pg_stat_statements.track", "none").start()?;
    runner.check()?;
    let mariadb = MariaDb::options().durable().start()?;
    runner.check()?;
    let urls = [(POSTGRES_URL, postgres.url()), (MARIADB_URL, mariadb.url())];
    let mut cargo = runner.cargo();
    cargo.args(["run", "--release", "--quiet", "--package=reflex-bench", "--"]).envs(urls.clone());
    add_options(&mut cargo, args);
    if args.peers {
        let mut peers = runner.cargo();
        peers.args(["run", "--release", "--quiet", "--manifest-path", PEERS, "--", PEER_FIGURES]).envs(urls);
        runner.run(peers.args(args.quick.then_some("--quick")))?;
        cargo.args(["--merge", PEER_FIGURES]);
    }
    runner.run(&mut cargo)
}

fn add_options(cargo: &mut Command, args: &Args) {
    cargo.args(args.quick.then_some("--quick"));
    cargo.args(args.filter.iter().map(|filter| format!("--filter={filter}")));
    if let Some(file) = &args.json {
        cargo.arg("--json").arg(file);
    }
}
