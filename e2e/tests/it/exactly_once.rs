//! Transactional consumers in processes that are killed with SIGKILL at random, and in two processes at once.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{
    BufferedCursors, Consumer, CursorStore, DeadLetterStore, Event, HandlerError, Selection, Spec, StreamOptions,
};
use reflex_e2e::{Backend, check_all_effects, duration, make_effects, seed, write_effects};
use reflex_sql::{CursorsTable, ErrorsTable, EventsTable, TransactionalCursors};
use rpatterns::{Key, batch_by_len, dead_letter, redrive, shard};
use sqlx::{MySql, Postgres, Sqlite};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    process::Process,
    support::{Namespace, PATIENCE, run},
};

/// For each second of a chaos test: 40 s make 200,000, and 50 kills.
const EVENTS_PER_SECOND: u64 = 5_000;
const EVENTS_PER_KILL: u64 = 4_000;
const MIN_KILLS: u64 = 10;
const EVENTS_PER_INSERT: u64 = 500;
const KEYS: u64 = 1_000;
const BATCH: &str = "100";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn killed_on_postgres() {
    let test = "exactly_once_postgres";
    killed(test, Namespace::<Postgres>::postgres(test).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn killed_on_mariadb() {
    let test = "exactly_once_mariadb";
    killed(test, Namespace::<MySql>::mariadb(test).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_on_sqlite() {
    killed("exactly_once_sqlite", Namespace::<Sqlite>::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn rivals_on_postgres() {
    let test = "rivals_postgres";
    rivals(test, Namespace::<Postgres>::postgres(test).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn rivals_on_mariadb() {
    let test = "rivals_mariadb";
    rivals(test, Namespace::<MySql>::mariadb(test).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rivals_on_sqlite() {
    rivals("rivals_sqlite", Namespace::<Sqlite>::sqlite().await).await;
}

/// A run that ends between putting an event aside and moving the cursor: the stream delivers it again, and it is redriven.
#[tokio::test(flavor = "multi_thread")]
async fn put_aside_on_sqlite() {
    let namespace = Namespace::<Sqlite>::sqlite().await;
    make_effects(&namespace.pool, KEYS).await.unwrap();
    let last = insert(&namespace, &mut StdRng::seed_from_u64(seed("put_aside").unwrap())).await;
    let (pool, cursors) = (&namespace.pool, CursorsTable::open(&namespace.pool, "cursors").await.unwrap());
    let errors = ErrorsTable::open(pool, "consumer_errors").await.unwrap();
    let (events, cursors) = (EventsTable::open(pool, "events").await.unwrap(), TransactionalCursors::new(cursors));
    let stream = reflex_testing::collect(&events, StreamOptions::new()).await.unwrap();
    for event in stream.iter().step_by(7) {
        errors.put("shop", event, &HandlerError::new("killed before the cursor moved")).await.unwrap();
    }
    errors.request("shop", &Selection::All).await.unwrap();

    let run = async || {
        let consumer = batch_by_len(100, dead_letter(errors.clone(), writing_effects(&cursors, "shop")));
        let mut spec = Spec::new(events.clone(), cursors.clone(), consumer).to_head();
        let end = Box::pin(reflex_core::run(&mut spec)).await;
        assert!(end.as_ref().unwrap_err().is_head_reached(), "{end:?}");
    };
    Box::pin(run()).await;
    errors.request("shop", &Selection::All).await.unwrap();
    let consumer = writing_effects(&cursors, "shop");
    redrive::<Vec<Event>, _, _>(&mut dead_letter(errors.clone(), consumer)).await.unwrap();
    Box::pin(run()).await;
    assert!(errors.list(Some("shop"), 1).await.unwrap().is_empty());
    assert_eq!(check_all_effects(pool).await.unwrap() as u64, last);
    namespace.remove().await;
}

/// A shard has the name of the transactional consumer inside it.
#[tokio::test(flavor = "multi_thread")]
async fn shards_on_sqlite() {
    let namespace = Namespace::<Sqlite>::sqlite().await;
    make_effects(&namespace.pool, KEYS).await.unwrap();
    let last = insert(&namespace, &mut StdRng::seed_from_u64(seed("shards").unwrap())).await;
    let (pool, cursors) = (&namespace.pool, CursorsTable::open(&namespace.pool, "cursors").await.unwrap());
    let (events, cursors) = (EventsTable::open(pool, "events").await.unwrap(), TransactionalCursors::new(cursors));
    for m in 1..=2 {
        let name = format!("shop_{m}_of_2");
        let consumer = batch_by_len(100, writing_effects(&cursors, &name));
        let consumer = shard(m, 2, Key::by_foreign_id(), consumer).unwrap().named(name.as_str());
        let buffered = BufferedCursors::new(cursors.clone());
        let end = reflex_core::run(&mut Spec::new(events.clone(), buffered, consumer).to_head()).await.unwrap_err();
        assert!(end.is_head_reached(), "{end}");
        assert!(cursors.get(&name).await.unwrap().unwrap().as_i64().unwrap() > 0);
    }
    assert_eq!(check_all_effects(pool).await.unwrap() as u64, last);
    namespace.remove().await;
}

/// One process after the other is killed somewhere in its share of the events.
async fn killed<D: Backend>(test: &str, namespace: Namespace<D>) {
    let mut rng = StdRng::seed_from_u64(seed(test).unwrap());
    let last = set_up(&namespace, &mut rng).await;
    let kills = (last / EVENTS_PER_KILL).max(MIN_KILLS);
    let mut fenced = 0;
    for kill in 0..kills {
        // The one before may have handled all that there was, and what has nothing to do says nothing.
        insert(&namespace, &mut rng).await;
        let mut process = Process::start(&namespace.url, &["transact", "shop", BATCH]).unwrap();
        // Some die before they have done anything.
        if !rng.random_ratio(1, 5) {
            let share = rng.random_range(kill * last / kills..(kill + 1) * last / kills);
            fenced += reach(&mut process, share).await.unwrap();
        }
        sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        process.kill().await.unwrap();
    }
    let last = insert(&namespace, &mut rng).await;
    let mut process = Process::start(&namespace.url, &["transact", "shop", BATCH]).unwrap();
    fenced += reach(&mut process, last).await.unwrap();
    wait_for_cursor(&namespace, last).await;
    process.kill().await.unwrap();
    let effects = check_all_effects(&namespace.pool).await.unwrap();
    eprintln!("{test}: {effects} events had their effect once, {kills} kills, {fenced} fences");
    namespace.remove().await;
}

/// Two processes run the same consumer all the time.
async fn rivals<D: Backend>(test: &str, namespace: Namespace<D>) {
    let mut rng = StdRng::seed_from_u64(seed(test).unwrap());
    let mut last = set_up(&namespace, &mut rng).await;
    let start = || Process::start(&namespace.url, &["transact", "shop", BATCH]).unwrap();
    let (mut one, mut other) = (start(), start());
    let (mut fenced, due) = (0, Instant::now() + PATIENCE * 2 + Duration::from_millis(last));
    while fenced == 0 || stored(&namespace).await != last {
        assert!(Instant::now() < due, "not all events are done in time, or the two never met");
        if stored(&namespace).await == last {
            last = insert(&namespace, &mut rng).await;
        }
        for process in [&mut one, &mut other] {
            while let Ok(line) = timeout(Duration::from_millis(5), process.line()).await {
                let line = line.unwrap().expect("a rival does not end");
                fenced += u32::from(line == "fenced");
            }
        }
    }
    for process in [one, other] {
        let lines = process.kill().await.unwrap();
        fenced += lines.iter().map(|line| u32::from(line == "fenced")).sum::<u32>();
    }
    let effects = check_all_effects(&namespace.pool).await.unwrap();
    eprintln!("{test}: {effects} events had their effect once, {fenced} fences");
    namespace.remove().await;
}

/// Makes the tables and the events; returns the last id.
fn writing_effects(cursors: &TransactionalCursors<Sqlite>, name: &str) -> impl Consumer<Vec<Event>> + use<> {
    cursors.consumer(name, |mut tx, events: Vec<Event>| async move { write_effects::<Sqlite>(&mut tx, &events).await })
}

async fn set_up<D: Backend>(namespace: &Namespace<D>, rng: &mut StdRng) -> u64 {
    let events = EVENTS_PER_SECOND * duration(Duration::from_secs(10)).unwrap().as_secs().max(1);
    make_effects(&namespace.pool, KEYS).await.unwrap();
    let mut last = 0;
    for _ in 0..events / EVENTS_PER_INSERT {
        last = insert(namespace, rng).await;
    }
    last
}

/// Inserts some events; returns the last id.
async fn insert<D: Backend>(namespace: &Namespace<D>, rng: &mut StdRng) -> u64 {
    let rows: Vec<_> = (0..EVENTS_PER_INSERT).map(|_| format!("('{}', 1)", rng.random_range(1..=KEYS))).collect();
    run(&namespace.pool, &format!("insert into events (foreign_id, type) values {}", rows.join(", "))).await;
    D::number(&namespace.pool, "select max(id) from events").await.unwrap().try_into().unwrap()
}

/// Reads what a process says until it is about to commit this id. Returns how often it said that it was fenced.
async fn reach(process: &mut Process, id: u64) -> Result<u32> {
    let (mut fenced, due) = (0, Instant::now() + PATIENCE * 2 + Duration::from_millis(id));
    loop {
        let line = tokio::time::timeout_at(due, process.line()).await.context("it is not done in time")??;
        match line.as_deref() {
            Some("fenced") => fenced += 1,
            Some(line) if line.parse::<u64>()? >= id => return Ok(fenced),
            Some(_) => {}
            None => bail!("the consumer ended: {}", process.child.wait().await?),
        }
    }
}

async fn wait_for_cursor<D: Backend>(namespace: &Namespace<D>, last: u64) {
    let reached = || async { stored(namespace).await == last };
    reflex_testing::eventually("the last commit", PATIENCE, reached).await;
}

async fn stored<D: Backend>(namespace: &Namespace<D>) -> u64 {
    let sql = "select coalesce(max(last_event_id), 0) from cursors where id = 'shop'";
    D::number(&namespace.pool, sql).await.unwrap().try_into().unwrap()
}
