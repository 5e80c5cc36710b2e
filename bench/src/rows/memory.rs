//! How much memory a long backlog and a slow consumer take.

use anyhow::{Context, Result};
use sqlx::Postgres;
use tokio::sync::mpsc;

use crate::{
    bench::Bench,
    child::{Backlog, Child},
    report::{Requirement, Row, Unit},
};

const ROWS: u64 = 10_000_000;
const FAST: u64 = 9;
/// A thousand times of what the others take for an event where ten of them get four million events per second.
const DELAY_MS: u64 = 3;

/// In a process of its own, which does nothing else. The slow consumer is left behind when the others are at the head.
pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let id = "memory/postgres";
    bench.with_database::<Postgres>(&[id], async |db| {
        let rows = bench.size(ROWS);
        let table = db.filled(rows).await?;
        let (to, mut told) = mpsc::channel(1);
        let child = Child::Backlog(Backlog { url: db.url.clone(), table, rows, fast: FAST, delay_ms: DELAY_MS });
        child.forward(bench.program().to_owned(), to).await?;
        let megabytes = told.recv().await.context("the process tells its memory")? as f64 / 1e6;
        let what = format!(
            "Postgres: peak memory, {FAST} consumers through {rows} events, one more that takes {DELAY_MS} ms for each"
        );
        bench.add(Row::new(id, what, Unit::Megabytes, &[megabytes.into()]).required(Requirement::Below(100.0)));
        Ok(())
    })
}
