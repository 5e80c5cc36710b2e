use std::{ops::Range, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use reflex_e2e::{Backend, Outcome, Tally, Workload, duration, insert_statement, seed};
use reflex_sql::EventsTable;
use reflex_testing::{Report, Violations, check_effects, eventually};
use sqlx::Pool;
use test_servers::Proxy;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::runners::{Runners, Seen};
use crate::support::{Namespace, PATIENCE, write_until};

/// How long a drill goes on if nothing else is said.
const SHORT: Duration = Duration::from_secs(2);
const MIN_STRIKES: u64 = 2;
const WRITERS: Range<u32> = 1..9;
/// Where others wait while one writes: they wait in no order, and one of many could wait for as long as all others write.
const WRITERS_IN_TURN: Range<u32> = 1..4;
/// The foreign ids of the drill itself begin after those of this writer.
const OWN: u32 = 100_000;
/// All rows of a run are checked once for each consumer.
const MAX_ROWS: u64 = 300_000;
const MAX_ROWS_PER_SECOND: u64 = 500;

/// One kind of fault.
pub(super) trait Fault<D: Backend> {
    const NAME: &'static str;

    /// What it does to the runs of consumers.
    const RUNS: Runs;

    /// How long a query of a consumer may take: longer than any on a loaded machine, unless it has to fail.
    const DEADLINE: Duration = match Self::RUNS {
        Runs::GoOn => Duration::from_secs(120),
        Runs::Fail | Runs::MayFail => Duration::from_secs(5),
    };

    /// Does it, and undoes it; returns how many faults that were.
    async fn strike(&mut self, drill: &mut Drill<'_, D>) -> u64;

    /// Whether it cannot be done again.
    fn is_spent(&self) -> bool {
        false
    }

    /// The writers have ended with an event of this id. Returns what other consumers saw than those of every drill.
    async fn finish(&mut self, _drill: &mut Drill<'_, D>, _last: i64) -> Vec<Seen> {
        Vec::new()
    }
}

/// What a fault does to the runs of consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// They end with errors.
    Fail,
    /// They may end with errors.
    MayFail,
    /// They go on.
    GoOn,
}

/// A database under load, for a fault to strike.
pub(super) struct Drill<'a, D: Backend> {
    pub(super) url: &'a str,
    pub(super) pool: &'a Pool<D>,
    pub(super) table: EventsTable<D>,
    /// Between the consumers and their server, if there is one.
    pub(super) proxy: Option<Proxy>,
    pub(super) runners: Runners<D>,
    pub(super) rng: StdRng,
    /// The foreign ids that were certainly committed.
    pub(super) told: Vec<i64>,
    next: i64,
}

/// Torments a database with a fault, again and again, while writers do all that a service may and consumers follow. After
/// each strike every consumer gets on; in the end each has been handed what was committed, and nothing else, in its order.
pub(super) async fn drill<D: Backend, F: Fault<D>>(namespace: &Namespace<D>, mut fault: F) {
    let begun = Instant::now();
    let duration = duration(SHORT).unwrap();
    let seed = seed(&format!("{} on {}", F::NAME, D::TITLE)).unwrap();
    let mut drill = Drill::begin::<F>(namespace, seed).await;
    let (stop, writing) = drill.write(seed, duration);
    let (mut strikes, mut faults) = (0, 0);
    while strikes < MIN_STRIKES || (begun.elapsed() < duration && !fault.is_spent()) {
        drill.runners.get_on().await;
        faults += fault.strike(&mut drill).await;
        strikes += 1;
    }
    drill.runners.get_on().await;
    stop.send_replace(true);
    let (tally, told) = writing.await.unwrap();
    drill.told.extend(told);
    let last = D::number(drill.pool, "select max(id) from events").await.unwrap();
    let mut seen = fault.finish(&mut drill, last).await;
    seen.extend(drill.runners.finish(last).await);

    let outcome = Outcome {
        fault: F::NAME.to_owned(),
        database: D::TITLE.to_owned(),
        faults,
        failures: drill.runners.failures().iter().sum(),
        ..Outcome::default()
    };
    let judged = drill.judge(outcome, seen, last, begun).await;
    assert!(judged.faults > 0 && tally.commits > 0 && tally.rollbacks > 0, "{judged:?}, {tally:?}");
    match F::RUNS {
        Runs::Fail => assert!(judged.failures > 0, "no run noticed the faults"),
        Runs::GoOn => assert_eq!(judged.failures, 0, "{:?}", drill.runners.messages()),
        Runs::MayFail => {}
    }
}

impl<'a, D: Backend> Drill<'a, D> {
    async fn begin<F: Fault<D>>(namespace: &'a Namespace<D>, seed: u64) -> Self {
        let (consumers, proxy) = namespace.far_away(Duration::ZERO).await;
        let runners = Runners::start(&namespace.pool, &consumers, F::DEADLINE).await;
        Self {
            url: &namespace.url,
            pool: &namespace.pool,
            table: EventsTable::open(&namespace.pool, "events").await.unwrap(),
            proxy,
            runners,
            rng: StdRng::seed_from_u64(seed),
            told: Vec::new(),
            next: i64::from(OWN) * Workload::PER_WRITER,
        }
    }

    fn write(&self, seed: u64, duration: Duration) -> (watch::Sender<bool>, JoinHandle<(Tally, Vec<i64>)>) {
        let workload = Workload {
            seed,
            writers: if D::ONE_WRITER { WRITERS_IN_TURN } else { WRITERS },
            duration,
            rows_per_second: (MAX_ROWS / duration.as_secs().max(1)).min(MAX_ROWS_PER_SECOND),
            // On SQLite a slow one makes all others wait.
            slow_per_mille: if D::ONE_WRITER { 5 } else { 50 },
            duplicates_allowed: false,
            survives: true,
        };
        let (stop, mut stopped) = watch::channel(false);
        let (pool, table) = (self.pool.clone(), self.table.clone());
        let writing = tokio::spawn(async move {
            let stopped = async { drop(stopped.wait_for(|stopped| *stopped).await) };
            write_until(&workload, stopped, &pool, &table).await
        });
        (stop, writing)
    }

    /// Foreign ids that nobody has used.
    pub(super) fn foreign_ids(&mut self, count: i64) -> Range<i64> {
        self.next += count;
        self.next - count..self.next
    }

    /// Commits so many events.
    pub(super) async fn insert(&mut self, count: i64) -> Result<(), sqlx::Error> {
        let foreign_ids = self.foreign_ids(count);
        let mut conn = D::connect(self.pool).await?;
        D::run_sql(&mut conn, insert_statement(foreign_ids.clone())).await?;
        self.told.extend(foreign_ids);
        Ok(())
    }

    /// Waits until others have committed events with higher ids than one that an open transaction holds, and then sees to it
    /// that no consumer gets past it.
    pub(super) async fn is_waited_for(&self, held: i64) {
        if !D::ONE_WRITER {
            let higher = format!("select count(*) from events where id > {held}");
            let passed = || async { D::number(self.pool, &higher).await.unwrap() > 0 };
            eventually("events with higher ids", PATIENCE, passed).await;
        }
        self.runners.wait_at(held).await;
    }

    /// Holds what was seen against what was committed, all of which has to be there up to `last` at least.
    async fn judge(&self, mut outcome: Outcome, seen: Vec<Seen>, last: i64, begun: Instant) -> Outcome {
        // The server may commit the last statement of a killed writer after the consumers were told where to stop.
        let committed = D::events(self.pool).await.unwrap();
        let mut wrong = Vec::new();
        for Seen { name, record } in &seen {
            let committed = up_to(&committed, record.last().max(last));
            outcome.count(&record.history(committed));
            wrong.extend(record.check(committed).err().map(|error| format!("{name}: {error:#}")));
        }
        let checked = self.check_effects(&committed, last).await;
        if checked.is_err() {
            outcome.count(&checked);
        }
        wrong.extend(checked.err().map(|error| format!("effects: {error}")));
        outcome.events = committed.len() as u64;
        outcome.seconds = begun.elapsed().as_secs();
        outcome.tell().unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_all_there(&self.told, &committed);
        outcome
    }

    /// Each event had its effect once.
    async fn check_effects(&self, committed: &[(i64, i64)], last: i64) -> Result<Report, Violations> {
        let mut conn = self.pool.acquire().await.unwrap();
        let effects = D::rows(&mut conn, "select event_id from effects".to_owned()).await.unwrap();
        let effects: Vec<_> = effects.into_iter().map(|row| row.0).collect();
        let last = effects.iter().copied().fold(last, i64::max);
        let ids: Vec<_> = up_to(committed, last).iter().map(|(id, _)| *id).collect();
        check_effects(&ids, &effects)
    }
}

/// The events with ids up to `last`.
fn up_to(committed: &[(i64, i64)], last: i64) -> &[(i64, i64)] {
    &committed[..committed.partition_point(|(id, _)| *id <= last)]
}

/// A writer that was interrupted may have committed more than it could tell, and never less.
#[track_caller]
fn assert_all_there(told: &[i64], committed: &[(i64, i64)]) {
    let committed: std::collections::HashSet<_> = committed.iter().map(|(_, foreign_id)| foreign_id).collect();
    let missing: Vec<_> = told.iter().filter(|told| !committed.contains(told)).take(10).collect();
    assert!(missing.is_empty(), "told and not there: {missing:?}");
}
