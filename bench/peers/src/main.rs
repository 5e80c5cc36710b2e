//! Measures libraries with a similar purpose, on the server of `cargo xtask bench --peers`, and writes what they do as
//! JSON: bulk inserts, reading a backlog, and the time from a commit to a consumer in the same process.

mod disintegrate;
mod obix;

use std::{env, fs, path::Path, time::Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::PgPool;

/// What one library does: one sample for each run.
#[derive(Serialize)]
struct Peer {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    /// The row of `reflex-bench` that does the same.
    beside: &'static str,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    runs: usize,
    events: usize,
    /// Events whose latency is measured, one by one.
    singles: usize,
}

/// The figures of one run of a library.
struct Run {
    inserted_per_second: f64,
    read_per_second: f64,
    /// Milliseconds, ascending.
    latencies: Vec<f64>,
}

/// Events in one transaction.
const BULK: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let quick = env::args().any(|arg| arg == "--quick");
    let file = env::args().skip(1).find(|arg| !arg.starts_with("--")).context("name a file for the figures")?;
    let url = env::var("REFLEX_BENCH_POSTGRES_URL").context("REFLEX_BENCH_POSTGRES_URL names the server")?;
    let scale = if quick {
        Scale { runs: 3, events: 10_000, singles: 50 }
    } else {
        Scale { runs: 5, events: 100_000, singles: 300 }
    };
    let obix = measure(&url, "obix 0.16.0", scale, obix::run).await;
    let disintegrate = measure(&url, "disintegrate-postgres 4.0.1", scale, disintegrate::run).await;
    let mut peers = Vec::new();
    for measured in [obix, disintegrate] {
        // One that does not run on this server does not keep the others from it.
        match measured {
            Ok(figures) => peers.extend(figures),
            Err(error) => eprintln!("left out: {error:#}"),
        }
    }
    if let Some(folder) = Path::new(&file).parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(file, serde_json::to_vec_pretty(&peers)?)?)
}

async fn measure(
    url: &str,
    name: &str,
    scale: Scale,
    run: impl AsyncFn(PgPool, Scale) -> Result<Run>,
) -> Result<Vec<Peer>> {
    let mut runs = Vec::new();
    for number in 0..scale.runs {
        // A database for each run, so that none finds what another left.
        let database = format!("peer_{}_{number}", std::process::id());
        let admin = PgPool::connect(url).await?;
        sqlx::query(&format!("create database {database}")).execute(&admin).await?;
        let pool = PgPool::connect(&in_database(url, &database)?).await?;
        let ran = run(pool, scale).await;
        sqlx::query(&format!("drop database {database} with (force)")).execute(&admin).await?;
        runs.push(ran.with_context(|| format!("measure {name}"))?);
    }
    let all = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let peer = |what: &str, unit, samples, beside| Peer { what: format!("{name}: {what}"), unit, samples, beside };
    Ok(vec![
        peer(
            "events inserted, 1,000 per transaction",
            "per_second",
            all(|run| run.inserted_per_second),
            "insert/postgres/bulk",
        ),
        peer("one consumer through a backlog", "per_second", all(|run| run.read_per_second), "back-fill/postgres"),
        peer("commit to consumer, p50", "milliseconds", all(|run| run.quantile(50)), "latency/in-process/postgres/p50"),
        peer("commit to consumer, p99", "milliseconds", all(|run| run.quantile(99)), "latency/in-process/postgres/p99"),
    ])
}

fn in_database(url: &str, database: &str) -> Result<String> {
    let (server, _) = url.rsplit_once('/').context("the URL names a database")?;
    Ok(format!("{server}/{database}"))
}

impl Run {
    fn quantile(&self, percent: usize) -> f64 {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

fn per_second(count: usize, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
