//! The benchmarks, with servers of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use test_servers::{MariaDb, Postgres};

use crate::install;
use crate::runner::Runner;

const POSTGRES_URL: &str = "REFLEX_BENCH_POSTGRES_URL";
const MARIADB_URL: &str = "REFLEX_BENCH_MARIADB_URL";
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/peers/Cargo.toml");
const PEER_FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/peers/target/figures.json");

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measure only rows whose ids contain this; can be repeated
    #[arg(long)]
    filter: Vec<String>,
    /// Print the ids of the rows that would be measured, and measure nothing
    #[arg(long)]
    list: bool,
    /// Measure less, for a first look
    #[arg(long)]
    quick: bool,
    /// Measure libraries with a similar purpose as well, which takes minutes to build
    #[arg(long)]
    peers: bool,
}

/// Builds, starts the servers, and measures.
pub(crate) fn run(runner: &Runner, args: &Args) -> Result<()> {
    if args.list {
        return runner.run(program(runner, args).arg("--list"));
    }
    install::ensure(runner, true, true, false)?;
    runner.run(runner.cargo().args(["build", "--release", "--package=reflex-bench"]))?;
    // It refuses what it cannot do before servers start for it.
    runner.output(program(runner, args).arg("--list"))?;
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
    let mut program = program(runner, args);
    program.envs(urls.clone());
    if args.peers {
        let mut peers = runner.cargo();
        peers.args(["run", "--release", "--quiet", "--manifest-path", PEERS, "--", PEER_FIGURES]).envs(urls);
        runner.run(peers.args(args.quick.then_some("--quick")))?;
        program.args(["--merge", PEER_FIGURES]);
    }
    runner.run(&mut program)
}

/// The program that measures, with what it is asked for.
fn program(runner: &Runner, args: &Args) -> Command {
    let mut cargo = runner.cargo();
    cargo.args(["run", "--release", "--quiet", "--package=reflex-bench", "--"]);
    cargo.args(args.quick.then_some("--quick"));
    cargo.args(args.filter.iter().map(|filter| format!("--filter={filter}")));
    if let Some(file) = &args.json {
        cargo.arg("--json").arg(file);
    }
    cargo
}
