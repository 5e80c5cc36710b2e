//! Many writers that do everything a service may, many readers of every kind: nothing is lost, made up or reordered.

use std::time::Duration;

use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{BufferedCursors, EventsTableMetrics};
use reflex_e2e::{
    Backend, Goal, Goals, Outcome, Record, Tally, Workload, duration,
    readers::{Speed, ToHead, follow, follow_from_head, restart_at_random, to_head_repeatedly},
    seed,
};
use reflex_sql::{CursorsTable, EventsTable, EventsTableOptions, GapMode};
use sqlx::Pool;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{Namespace, PATIENCE, assert_committed, assert_wild, metrics, run, write};

/// All rows of a run are checked once for each reader.
const MAX_ROWS: u64 = 1_000_000;
const MAX_ROWS_PER_SECOND: u64 = 6_000;
const WRITERS: u32 = 16;
/// How much later each message from and to a reader arrives that is far away.
const FAR: Duration = Duration::from_millis(1);

/// Makes a few inserts sleep after they have drawn their ids and before they have a row.
const DROWSY_POSTGRES: &str = "create function drowse() returns trigger language plpgsql as $$
    begin
        if new.foreign_id::bigint % 150 = 57 then perform pg_sleep(0.3); end if;
        return new;
    end $$;
    create trigger drowsy before insert on events for each row execute function drowse()";
/// Here it holds the ids of the statement's other rows.
const DROWSY_MARIADB: &str = "create trigger drowsy before insert on events for each row
    set @slept = if(new.foreign_id % 300 = 57, sleep(0.3), 0)";

/// What differs between the databases.
struct Chaos {
    test: &'static str,
    mode: GapMode,
    default: Duration,
    slow_per_mille: u32,
    /// Whether ids are missed while writers are at it.
    gaps: bool,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn chaos_postgres() {
    let chaos = Chaos::on_a_server("chaos_postgres", GapMode::Auto);
    let namespace = Namespace::postgres(chaos.test).await;
    run(&namespace.pool, DROWSY_POSTGRES).await;
    chaos.run(&namespace).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn chaos_mariadb() {
    let chaos = Chaos::on_a_server("chaos_mariadb", GapMode::MetadataLocks);
    let namespace = Namespace::mariadb(chaos.test).await;
    run(&namespace.pool, DROWSY_MARIADB).await;
    chaos.run(&namespace).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn chaos_mariadb_noop() {
    let chaos = Chaos::on_a_server("chaos_mariadb_noop", GapMode::Noop);
    let namespace = Namespace::mariadb(chaos.test).await;
    run(&namespace.pool, DROWSY_MARIADB).await;
    chaos.run(&namespace).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_sqlite() {
    // A slow writer makes all others wait.
    let (mode, default) = (GapMode::Auto, Duration::from_secs(5));
    let chaos = Chaos { test: "chaos_sqlite", mode, default, slow_per_mille: 10, gaps: false };
    let namespace = Namespace::sqlite().await;
    chaos.run(&namespace).await;
    namespace.remove().await;
}

impl Chaos {
    fn on_a_server(test: &'static str, mode: GapMode) -> Self {
        Self { test, mode, default: Duration::from_secs(20), slow_per_mille: 50, gaps: true }
    }

    async fn run<D: Backend>(&self, namespace: &Namespace<D>) {
        let (pool, begun) = (&namespace.pool, Instant::now());
        let (far, _proxy) = match self.mode {
            // It fills one id after the other: from afar it takes too long.
            GapMode::Noop => (pool.clone(), None),
            _ => namespace.far_away(FAR).await,
        };
        let (seed, duration) = (seed(self.test).unwrap(), duration(self.default).unwrap());
        let workload = self.workload(seed, duration);
        let metrics = metrics();
        let options = EventsTableOptions::new("events").gap_mode(self.mode).metrics(&metrics);
        let tables = Tables::open(pool, &far, options).await;
        let (goals, goal) = Goals::new();
        let mut readers = readers(&tables, pool, &workload, &goal).await;

        let (tally, told) = write(&workload, pool, &tables.large).await;
        let committed = D::events(pool).await.unwrap();
        let last = committed.last().unwrap().0;
        // Slow readers are the further behind the longer it took.
        goals.set(last, PATIENCE + duration);
        let ended = Instant::now();
        let mut seen = Vec::new();
        while let Some(reader) = readers.join_next().await {
            seen.push(reader.unwrap());
        }
        let caught_up = ended.elapsed();

        assert_committed(&told, &committed);
        let mut outcome = Outcome {
            fault: format!("none{}", if self.mode == GapMode::Noop { ", noop mode" } else { "" }),
            database: D::TITLE.to_owned(),
            events: committed.len() as u64,
            seconds: begun.elapsed().as_secs(),
            ..Outcome::default()
        };
        let wrong = check(seen, &committed, &mut outcome);
        outcome.tell().unwrap();
        assert!(wrong.is_empty(), "{} of the readers:\n{}", wrong.len(), wrong.join("\n"));
        let table = metrics.events_table("events");
        self.tell(&tally, duration, caught_up, last, &table);
        assert_wild(&tally);
        assert!(tally.refused == 0 || self.mode == GapMode::Noop, "{tally:?}");
        assert!(!self.gaps || table.gaps_detected.get() > 0, "no gap was met");
    }

    fn workload(&self, seed: u64, duration: Duration) -> Workload {
        Workload {
            seed,
            writers: 1..WRITERS + 1,
            duration,
            rows_per_second: (MAX_ROWS / duration.as_secs().max(1)).min(MAX_ROWS_PER_SECOND),
            slow_per_mille: self.slow_per_mille,
            duplicates_allowed: self.mode == GapMode::Noop,
            survives: false,
        }
    }

    fn tell(&self, tally: &Tally, duration: Duration, caught_up: Duration, last: i64, table: &EventsTableMetrics) {
        eprintln!(
            "{}: {} events in {} s ({}/s), ids up to {last}; {} gaps met, {} proofs, {} ids skipped, {} filled, {} polls; \
             readers were done {:.1} s after the writers; {tally:?}",
            self.test,
            tally.committed,
            duration.as_secs(),
            tally.committed / duration.as_secs().max(1),
            table.gaps_detected.get(),
            table.gap_proofs.get(),
            table.gaps_skipped.get(),
            table.gaps_filled.get(),
            table.polls.get(),
            caught_up.as_secs_f64(),
        );
    }
}

/// Two handles of one table, each with a shared reader of its own.
struct Tables<D: Backend> {
    large: EventsTable<D>,
    /// Its ring is so small that its streams fall out of it all the time, and much happens between its statements.
    small: EventsTable<D>,
    cursors: CursorsTable<D>,
}

impl<D: Backend> Tables<D> {
    async fn open(pool: &Pool<D>, far: &Pool<D>, options: EventsTableOptions) -> Self {
        let large = options.clone().poll_interval(Duration::from_millis(50));
        let small = options.poll_interval(Duration::from_millis(200)).ring_events(300).page_size(1_000);
        Self {
            large: EventsTable::open(pool, large).await.unwrap(),
            small: EventsTable::open(far, small).await.unwrap(),
            cursors: CursorsTable::open(pool, "cursors").await.unwrap(),
        }
    }
}

/// What a reader brings home.
enum Seen {
    Record(Record),
    ToHead(Vec<ToHead>),
}

type Readers = JoinSet<(String, Result<Seen>)>;

async fn readers<D: Backend>(tables: &Tables<D>, pool: &Pool<D>, workload: &Workload, goal: &Goal) -> Readers {
    let mut rng = StdRng::seed_from_u64(workload.seed);
    let mut readers = Readers::new();
    for (size, table) in [("large", &tables.large), ("small", &tables.small)] {
        for speed in [Speed::Full, Speed::Slow] {
            let reader = follow(table.clone(), Record::new(), speed, goal.clone());
            spawn(&mut readers, format!("from the beginning, {speed:?}, {size} ring"), Duration::ZERO, record(reader));
        }
        let name = format!("restarted-{size}");
        let cursors = tables.cursors.clone();
        let cursors = move || BufferedCursors::new(cursors.clone()).max_sets(100);
        let restarts = StdRng::seed_from_u64(rng.random());
        let reader = restart_at_random(name.clone(), table.clone(), cursors, restarts, goal.clone());
        spawn(&mut readers, name, Duration::ZERO, record(reader));
        for _ in 0..2 {
            let (delay, at) = (workload.duration.mul_f64(rng.random_range(0.0..0.9)), rng.random_range(0.0..1.0));
            let reader = from_random_cursor(table.clone(), pool.clone(), at, goal.clone());
            spawn(&mut readers, format!("from a cursor, after {delay:?}, {size} ring"), delay, record(reader));
            let delay = workload.duration.mul_f64(rng.random_range(0.0..0.9));
            let reader = follow_from_head(table.clone(), pool.clone(), goal.clone());
            spawn(&mut readers, format!("from head, after {delay:?}, {size} ring"), delay, record(reader));
        }
        let pauses = StdRng::seed_from_u64(rng.random());
        let reader = to_head_repeatedly(table.clone(), pool.clone(), pauses, goal.clone());
        let reader = async { reader.await.map(Seen::ToHead) };
        spawn(&mut readers, format!("to head, {size} ring"), Duration::ZERO, reader);
    }
    readers
}

async fn record(reader: impl Future<Output = Result<Record>>) -> Result<Seen> {
    reader.await.map(Seen::Record)
}

fn spawn(
    readers: &mut Readers,
    name: String,
    delay: Duration,
    reader: impl Future<Output = Result<Seen>> + Send + 'static,
) {
    readers.spawn(async move {
        sleep(delay).await;
        (name, reader.await)
    });
}

async fn from_random_cursor<D: Backend>(table: EventsTable<D>, pool: Pool<D>, at: f64, goal: Goal) -> Result<Record> {
    let highest = D::number(&pool, "select coalesce(max(id), 0) from events").await?;
    follow(table, Record::after((highest as f64 * at) as i64), Speed::Full, goal).await
}

/// Holds what each reader saw against what was committed. Returns what is wrong.
fn check(seen: Vec<(String, Result<Seen>)>, committed: &[(i64, i64)], outcome: &mut Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, brought) in seen {
        let checked = brought.and_then(|seen| match seen {
            Seen::Record(record) => {
                outcome.count(&record.history(committed));
                record.check(committed).map(|report| eprintln!("  {name}: {report:?}"))
            }
            Seen::ToHead(reads) => {
                outcome.runs += reads.len();
                reads.iter().try_for_each(|read| read.check(committed))
            }
        });
        wrong.extend(checked.err().map(|error| format!("{name}: {error:#}")));
    }
    wrong
}
