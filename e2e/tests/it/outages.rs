//! Databases that go away or fall silent in the middle: the run ends with an error, and the next one goes on.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reflex_core::{Event, Spec, consumer_fn, run_until};
use reflex_e2e::{Backend, Goal, Goals, Record};
use reflex_migrations::up;
use reflex_sql::{CursorsTable, CursorsTableOptions, EventsTable, EventsTableOptions};
use reflex_testing::eventually;
use sqlx::{MySql, Pool, Postgres};
use test_servers::{MariaDb, Proxy};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::support::{PATIENCE, metrics};

const DEADLINE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_run_goes_on_after_postgres_was_killed() {
    goes_on_after_kills::<Postgres, test_servers::Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_run_goes_on_after_mariadb_was_killed() {
    goes_on_after_kills::<MySql, MariaDb>().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_run_ends_when_postgres_falls_silent() {
    ends_when_stalled::<Postgres, test_servers::Postgres>().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_run_ends_when_mariadb_falls_silent() {
    ends_when_stalled::<MySql, MariaDb>().await;
}

async fn goes_on_after_kills<D: Backend, S: Server>() {
    let server = Arc::new(spawn_blocking(S::begin).await.unwrap());
    let pool = D::pool(&server.url_via(server.address())).unwrap();
    up(&pool).await.unwrap();
    let (goals, goal) = Goals::new();
    let runner = Runner::default();
    let running = tokio::spawn(runner.clone().run(pool.clone(), goal));
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::spawn(write(pool.clone(), stopped));

    for _ in 0..3 {
        runner.consumes_more().await;
        let failures = runner.failures();
        server.clone().blocking(S::stop_hard).await;
        eventually("an error of the run", PATIENCE, || async { runner.failures() > failures }).await;
        server.clone().blocking(S::start_again).await;
    }
    runner.consumes_more().await;
    stop.send(true).unwrap();
    let told = writing.await.unwrap();
    let committed = D::events(&pool).await.unwrap();
    goals.set(committed.last().unwrap().0, PATIENCE);
    running.await.unwrap();

    let report = runner.record().check(&committed).unwrap();
    let missing: Vec<_> = told.iter().filter(|told| !committed.iter().any(|(_, id)| id == *told)).collect();
    assert!(missing.is_empty(), "committed before a crash and not there: {missing:?}");
    eprintln!("{report:?}, {} failures", runner.failures());
}

async fn ends_when_stalled<D: Backend, S: Server>() {
    let server = Arc::new(spawn_blocking(S::begin).await.unwrap());
    let direct = D::pool(&server.url_via(server.address())).unwrap();
    up(&direct).await.unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let pool = D::pool(&server.url_via(proxy.addr())).unwrap();
    let (goals, goal) = Goals::new();
    let runner = Runner::default();
    let running = tokio::spawn(runner.clone().run(pool, goal));
    let (stop, stopped) = watch::channel(false);
    let writing = tokio::spawn(write(direct.clone(), stopped));

    for _ in 0..2 {
        runner.consumes_more().await;
        let failures = runner.failures();
        proxy.stall();
        // The first run is in the middle of something, the second one begins.
        eventually("errors of two runs", PATIENCE, || async { runner.failures() > failures + 1 }).await;
        assert!(runner.said("no answer within"), "{:?}", runner.messages.lock().unwrap());
        proxy.cut().await;
        proxy.resume();
    }
    runner.consumes_more().await;
    stop.send(true).unwrap();
    writing.await.unwrap();
    let committed = D::events(&direct).await.unwrap();
    goals.set(committed.last().unwrap().0, PATIENCE);
    running.await.unwrap();
    let report = runner.record().check(&committed).unwrap();
    eprintln!("{report:?}, {} failures", runner.failures());
}

/// A consumer that is run again whenever its run ends.
#[derive(Clone, Default)]
struct Runner {
    record: Arc<Mutex<Record>>,
    failures: Arc<AtomicUsize>,
    messages: Arc<Mutex<Vec<String>>>,
}

impl Runner {
    async fn run<D: Backend>(self, pool: Pool<D>, goal: Goal) {
        let metrics = metrics();
        let options = EventsTableOptions::new("events").deadline(DEADLINE).poll_interval(Duration::from_millis(100));
        let table = EventsTable::<D>::open(&pool, options.metrics(&metrics)).await.unwrap();
        let options = CursorsTableOptions::new("cursors").deadline(DEADLINE).metrics(&metrics);
        let cursors = CursorsTable::<D>::open(&pool, options).await.unwrap();
        let seen = self.clone();
        let consumer = consumer_fn("survivor", move |event: Event| {
            let seen = seen.record().see(&event);
            async move { Ok(seen?) }
        });
        let mut spec = Spec::new(table, cursors, consumer).metrics(&metrics);
        loop {
            self.record().restart();
            let over = async {
                while !goal.is_over(self.record().last()) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let Err(end) = timeout(PATIENCE * 3, run_until(&mut spec, over)).await.expect("a run does not hang");
            if end.is_stopped() {
                return;
            }
            assert!(!end.is_expected() && !end.is_head_reached(), "{end}");
            self.failed(&end);
        }
    }

    fn failed(&self, error: &reflex_core::Error) {
        let chain: Vec<_> = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect();
        self.messages.lock().unwrap().push(chain.join(": "));
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    async fn consumes_more(&self) {
        let before = self.record().len();
        eventually("more events", PATIENCE, || async { self.record().len() > before + 50 }).await;
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    fn failures(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }

    fn said(&self, text: &str) -> bool {
        self.messages.lock().unwrap().iter().any(|message| message.contains(text))
    }
}

/// Inserts by plain SQL until it is stopped, whatever happens. Returns the foreign ids that were certainly committed.
async fn write<D: Backend>(pool: Pool<D>, stopped: watch::Receiver<bool>) -> Vec<i64> {
    let mut told = Vec::new();
    for foreign_id in 1.. {
        if *stopped.borrow() {
            break;
        }
        let inserted = insert(&pool, foreign_id).await;
        told.extend(inserted.is_ok().then_some(foreign_id));
        sleep(Duration::from_millis(2)).await;
    }
    told
}

async fn insert<D: Backend>(pool: &Pool<D>, foreign_id: i64) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    D::run_sql(&mut conn, format!("insert into events (foreign_id, type) values ('{foreign_id}', 1)")).await
}

/// A server of a test's own. All methods but the last two block.
trait Server: Send + Sync + Sized + 'static {
    fn begin() -> Self;
    fn stop_hard(&self);
    fn start_again(&self);
    fn address(&self) -> SocketAddr;
    fn url_via(&self, address: SocketAddr) -> String;

    async fn blocking(self: Arc<Self>, act: fn(&Self)) {
        spawn_blocking(move || act(&self)).await.unwrap();
    }
}

macro_rules! server {
    ($server:ty, $database:literal) => {
        impl Server for $server {
            fn begin() -> Self {
                done(Self::start())
            }

            fn stop_hard(&self) {
                done(self.kill());
            }

            fn start_again(&self) {
                done(self.restart());
            }

            fn address(&self) -> SocketAddr {
                self.addr()
            }

            fn url_via(&self, address: SocketAddr) -> String {
                self.url_via(address, $database)
            }
        }
    };
}

server!(test_servers::Postgres, "postgres");
server!(MariaDb, "test");

#[track_caller]
fn done<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}
