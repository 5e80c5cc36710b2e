//! Writers and consumers in processes of their own, killed with SIGKILL at random.

use std::{ops::Range, time::Duration};

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_e2e::{
    Backend, Goal, Goals, Record, Workload, duration,
    readers::{Speed, follow},
    seed,
};
use reflex_sql::EventsTable;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    process::Process,
    support::{Namespace, PATIENCE, assert_committed, write},
};

const LOOK: Duration = Duration::from_millis(20);
const MAX_ROWS: u64 = 300_000;
const MAX_ROWS_PER_SECOND: u64 = 1_500;
/// Writers in this process, in one that is left alone, and in those that are killed.
const HERE: Range<u32> = 1..9;
const BESIDE: Range<u32> = 101..109;
const FIRST_KILLED: u32 = 1_001;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn processes_on_postgres() {
    let namespace = Namespace::postgres("processes").await;
    torment("processes_postgres", &namespace).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn processes_on_mariadb() {
    let namespace = Namespace::mariadb("processes").await;
    torment("processes_mariadb", &namespace).await;
    namespace.remove().await;
}

async fn torment<D: Backend>(test: &str, namespace: &Namespace<D>) {
    let (seed, duration) = (seed(test).unwrap(), duration(Duration::from_secs(10)).unwrap());
    let (url, pool) = (&namespace.url, &namespace.pool);
    let here = Workload {
        seed,
        writers: HERE,
        duration,
        rows_per_second: rows_per_second(duration),
        slow_per_mille: 50,
        duplicates_allowed: false,
    };
    let table = EventsTable::open(pool, "events").await.unwrap();
    let (goals, goal) = Goals::new();
    let reader = tokio::spawn(follow(table.clone(), Record::new(), Speed::Full, goal.clone()));
    let kills = || StdRng::seed_from_u64(seed);
    let consumer = tokio::spawn(consume_and_kill(url.clone(), kills(), goal));

    let beside = write_beside(url, seed, BESIDE, duration);
    let killed = write_and_kill(url, seed, duration, kills());
    let ((tally, mut told), beside, killed) = tokio::join!(write(&here, pool, &table), beside, killed);
    let end = D::events(pool).await.unwrap().last().unwrap().0;
    goals.set(end, PATIENCE + duration);
    let read = reader.await.unwrap().unwrap();
    let (consumed, restarts) = consumer.await.unwrap().unwrap();

    assert!(read.last() >= end && consumed.last() >= end, "up to {end}: {}, {}", read.last(), consumed.last());

    // The server may still commit the last statement of a killed writer after the readers were told where to stop.
    let committed = D::events(pool).await.unwrap();
    let report = read.check(up_to(&committed, read.last())).unwrap();
    let at_least_once = consumed.check(up_to(&committed, consumed.last())).unwrap();
    let (of_killed, of_others): (Vec<_>, Vec<_>) =
        committed.iter().partition(|(_, foreign_id)| is_of_killed(*foreign_id));
    told.extend(beside.unwrap());
    assert_committed(&told, &of_others);
    let (killed, kills) = killed.unwrap();
    assert_all_there(&killed, &of_killed);
    assert!(report.committed > 0 && kills > 0 && restarts > 0);
    eprintln!(
        "{test}: {} events, {} of them by killed writers ({} told, {kills} kills); here {tally:?}; \
         consumer restarted {restarts} times: {at_least_once:?}",
        committed.len(),
        of_killed.len(),
        killed.len(),
    );
}

/// For each process: all rows of a run are checked.
fn rows_per_second(duration: Duration) -> u64 {
    (MAX_ROWS / duration.as_secs().max(1)).min(MAX_ROWS_PER_SECOND)
}

/// The events with ids up to `last`.
fn up_to(committed: &[(i64, i64)], last: i64) -> &[(i64, i64)] {
    &committed[..committed.partition_point(|(id, _)| *id <= last)]
}

fn is_of_killed(foreign_id: i64) -> bool {
    foreign_id >= i64::from(FIRST_KILLED) * Workload::PER_WRITER
}

/// A killed process may have committed more than it could tell, and never less.
#[track_caller]
fn assert_all_there(told: &[i64], committed: &[(i64, i64)]) {
    let committed: std::collections::HashSet<_> = committed.iter().map(|(_, foreign_id)| foreign_id).collect();
    let missing: Vec<_> = told.iter().filter(|told| !committed.contains(told)).take(10).collect();
    assert!(missing.is_empty(), "told and not there: {missing:?}");
}

/// Runs writers in another process to their end; returns the foreign ids that it says it committed.
async fn write_beside(url: &str, seed: u64, writers: Range<u32>, duration: Duration) -> Result<Vec<i64>> {
    let mut process = start_writers(url, seed, &writers, duration)?;
    let mut told = Vec::new();
    while let Some(line) = process.line().await? {
        told.push(line.parse()?);
    }
    let status = process.child.wait().await?;
    if !status.success() {
        bail!("the writers in another process failed: {status}");
    }
    Ok(told)
}

/// Runs writers in one process after the other, and kills each at some time. Returns what they told, and the number of kills.
async fn write_and_kill(url: &str, seed: u64, duration: Duration, mut kills: StdRng) -> Result<(Vec<i64>, u32)> {
    let until = Instant::now() + duration;
    let (mut told, mut killed) = (Vec::new(), 0);
    while Instant::now() < until {
        let first = FIRST_KILLED + 10 * killed;
        let process = start_writers(url, seed, &(first..first + 4), duration * 2)?;
        let life = Duration::from_millis(kills.random_range(300..2_000));
        sleep(life).await;
        for line in process.kill().await? {
            told.push(line.parse()?);
        }
        killed += 1;
    }
    Ok((told, killed))
}

/// Runs a consumer in one process after the other, and kills each at some time. Returns what they told, and the number of
/// restarts.
async fn consume_and_kill(url: String, mut kills: StdRng, goal: Goal) -> Result<(Record, u32)> {
    let (mut record, mut restarts) = (Record::new(), 0);
    loop {
        let mut process = Process::start(&url, &["consume", "killed"])?;
        // Once the writers have ended, the last one may finish.
        let life = Instant::now() + Duration::from_millis(kills.random_range(200..2_500));
        while !goal.is_over(record.last()) && (goal.is_set() || Instant::now() < life) {
            match timeout(LOOK, process.line()).await {
                Ok(Ok(Some(line))) => see(&mut record, &line)?,
                Ok(other) => bail!("the consumer ended: {other:?}, {}", process.child.wait().await?),
                Err(_nothing) => {}
            }
        }
        for line in process.kill().await? {
            see(&mut record, &line)?;
        }
        if goal.is_over(record.last()) {
            return Ok((record, restarts));
        }
        record.restart();
        restarts += 1;
    }
}

fn see(record: &mut Record, line: &str) -> Result<()> {
    let (id, foreign_id) = line.split_once(' ').context("a line has two numbers")?;
    record.see_ids(id.parse()?, foreign_id.parse()?);
    Ok(())
}

fn start_writers(url: &str, seed: u64, writers: &Range<u32>, duration: Duration) -> Result<Process> {
    let numbers = [seed, writers.start.into(), writers.end.into(), duration.as_secs(), rows_per_second(duration)]
        .map(|n| n.to_string());
    let mut args = vec!["write"];
    args.extend(numbers.iter().map(String::as_str));
    Process::start(url, &args)
}
