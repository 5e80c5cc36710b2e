//! Keyed lanes on Postgres: handlers that take their time and fail at random, in processes that are killed at random.

use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_e2e::{Backend, duration, seed};
use reflex_testing::History;
use sqlx::Postgres;
use tokio::time::{Instant, timeout};

use crate::{
    process::Process,
    support::{Namespace, PATIENCE, run},
};

const LOOK: Duration = Duration::from_millis(20);
/// For each second of a chaos test: 20 s make 100,000.
const EVENTS_PER_SECOND: u64 = 5_000;
const EVENTS_PER_INSERT: u64 = 500;
const KEYS: u64 = 1_000;
const WINDOW: usize = 256;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn four_lanes() {
    torment("lanes_four", 4..=4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn another_number_of_lanes_in_each_process() {
    torment("lanes_changing", 1..=9).await;
}

async fn torment(test: &str, lanes: RangeInclusive<usize>) {
    let seed = seed(test).unwrap();
    let events = EVENTS_PER_SECOND * duration(Duration::from_secs(10)).unwrap().as_secs().max(1);
    let namespace = Namespace::postgres(test).await;
    let consumer = consume_and_kill(&namespace.url, lanes, StdRng::seed_from_u64(seed), events);
    let (seen, ()) = tokio::join!(consumer, insert(&namespace, events));
    let seen = seen.unwrap();
    let committed = Postgres::events(&namespace.pool).await.unwrap();
    seen.check(&committed).unwrap();
    eprintln!("{test}: {} of {events} events; {seen:?}", committed.len());
    namespace.remove().await;
}

async fn insert(namespace: &Namespace<Postgres>, events: u64) {
    for _ in 0..events / EVENTS_PER_INSERT {
        let sql = format!(
            "insert into events (foreign_id, type) \
             select (1 + floor(random() * {KEYS}))::int, 1 from generate_series(1, {EVENTS_PER_INSERT})"
        );
        run(&namespace.pool, &sql).await;
    }
}

/// Runs consumers in one process after the other, each with a random number of lanes, and kills each at some time, until all
/// events are done.
async fn consume_and_kill(url: &str, lanes: RangeInclusive<usize>, mut kills: StdRng, events: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    let due = Instant::now() + PATIENCE * 2 + Duration::from_millis(events);
    while (seen.ids.len() as u64) < events {
        ensure!(Instant::now() < due, "not all events are done in time: {seen:?}");
        let args = [kills.random_range(lanes.clone()), WINDOW].map(|number| number.to_string());
        let mut process = Process::start(url, &["lanes", "killed", &args[0], &args[1]])?;
        let life = Instant::now() + Duration::from_millis(kills.random_range(100..1_500));
        while Instant::now() < life && (seen.ids.len() as u64) < events {
            match timeout(LOOK, process.line()).await {
                Ok(Ok(Some(line))) => seen.note(&line)?,
                Ok(other) => bail!("the consumer ended: {other:?}, {}", process.child.wait().await?),
                Err(_nothing) => {}
            }
        }
        for line in process.kill().await? {
            seen.note(&line)?;
        }
        seen.interrupted();
        seen.kills += 1;
    }
    Ok(seen)
}

/// What all consumers did.
#[derive(Default)]
struct Seen {
    /// By foreign id.
    keys: BTreeMap<i64, History>,
    ids: HashSet<i64>,
    kills: usize,
    failures: usize,
    /// Events that were done before, in all, in this run, and the most in any run.
    repeats: usize,
    repeats_in_run: usize,
    most_repeats: usize,
}

impl Seen {
    fn note(&mut self, line: &str) -> Result<()> {
        if line == "failed" {
            self.failures += 1;
            self.interrupted();
            return Ok(());
        }
        let (id, foreign_id) = line.split_once(' ').context("a line has two numbers")?;
        let id = id.parse()?;
        self.keys.entry(foreign_id.parse()?).or_default().see(id);
        if !self.ids.insert(id) {
            self.repeats_in_run += 1;
        }
        Ok(())
    }

    fn interrupted(&mut self) {
        self.keys.values_mut().for_each(History::resume);
        self.most_repeats = self.most_repeats.max(self.repeats_in_run);
        self.repeats += std::mem::take(&mut self.repeats_in_run);
    }

    /// Every event was done, those of each key in their order, and of the events that were done before an interruption at most
    /// a window was done again.
    fn check(&self, committed: &[(i64, i64)]) -> Result<()> {
        let mut by_key: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (id, foreign_id) in committed {
            by_key.entry(*foreign_id).or_default().push(*id);
        }
        for (key, ids) in &by_key {
            let history = self.keys.get(key).with_context(|| format!("nothing of key {key}"))?;
            history.check(ids).with_context(|| format!("key {key}"))?;
        }
        ensure!(self.keys.len() == by_key.len(), "keys that nobody made");
        ensure!(self.most_repeats <= WINDOW, "{} events came again after one interruption", self.most_repeats);
        ensure!(self.kills > 1 && self.failures > 0, "nothing was interrupted");
        Ok(())
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events of {} keys done", self.ids.len(), self.keys.len())?;
        write!(f, ", {} kills, {} failures", self.kills, self.failures)?;
        write!(f, ", {} repeats, at most {} in a run", self.repeats, self.most_repeats)
    }
}
