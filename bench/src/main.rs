//! `reflex-bench`: measures and prints one table.
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use reflex_bench::{Bench, Child, Options, Scale, chosen, measure, serve};
use tracing_subscriber::filter::LevelFilter;

/// Measures the reflex crates and prints one table. `cargo xtask bench` calls it with servers of its own.
#[derive(Debug, Parser)]
struct Args {
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
    /// A file with what other libraries do, as `bench/peers` writes it; can be repeated
    #[arg(long)]
    merge: Vec<PathBuf>,
    /// A Postgres server, by the URL of an administrator
    #[arg(long, env = "REFLEX_BENCH_POSTGRES_URL")]
    postgres: Option<String>,
    /// A MariaDB server, by the URL of an administrator
    #[arg(long, env = "REFLEX_BENCH_MARIADB_URL")]
    mariadb: Option<String>,
    #[command(subcommand)]
    child: Option<Child>,
}

fn main() -> Result<()> {
    // As a service would have it, with the output going nowhere.
    tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(io::sink).init();
    let args = Args::parse();
    if let Some(child) = args.child {
        return serve(child);
    }
    ensure!(cfg!(target_os = "linux"), "the benchmarks read /proc, so they run on Linux only");
    let ids = chosen(&args.filter)?;
    if let Some(file) = &args.json {
        check_writable(file)?;
    }
    if args.list {
        println!("{}", ids.join("\n"));
        return Ok(());
    }
    run(args)
}

fn run(args: Args) -> Result<()> {
    let read = |file: &PathBuf| fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
    let merged = args.merge.iter().map(read).collect::<Result<Vec<_>>>()?;
    let scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    let program = env::current_exe().context("find this program")?;
    let (postgres, mariadb, filters) = (args.postgres, args.mariadb, args.filter);
    let bench = Bench::new(Options { postgres, mariadb, filters, scale, program })?;
    let measured = measure(&bench);
    let mut report = bench.finish()?;
    for (file, peers) in args.merge.iter().zip(&merged) {
        report.merge(peers).with_context(|| format!("read {}", file.display()))?;
    }
    println!("{report}");
    if let Some(file) = &args.json {
        fs::write(file, serde_json::to_vec_pretty(&report)?).with_context(|| format!("write {}", file.display()))?;
    }
    measured
}

/// Before anything is measured for it.
fn check_writable(file: &Path) -> Result<()> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).with_context(|| format!("write {}", file.display()))
}
