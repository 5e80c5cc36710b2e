//! Events of ten megabytes: they arrive in order, and few of them are in memory at once.

use std::{
    env, fs,
    io::{Write, stdout},
    ops::RangeInclusive,
    process::Stdio,
};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, StreamOptions};
use reflex_e2e::Backend;
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::eventually;
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use super::dialect;
use crate::support::{Namespace, PATIENCE, metrics, run};

const MEGABYTES: usize = 10;
const EVENTS: usize = 24;

/// A page in hand, one that is read ahead, the ring, and what the process has anyway. All events come to 480 MB.
const MOST_MEGABYTES: u64 = 250;

/// So that the events of a half do not fit.
const RING_BYTES: usize = 16 << 20;

/// What the reader says when it has all events that there are.
const AT_THE_HEAD: &str = "at the head";

/// Tells the process with the reader where the events are.
const URL: &str = "REFLEX_E2E_LARGE_EVENTS";

#[tokio::test]
async fn of_sqlite() {
    let namespace = Namespace::sqlite().await;
    large_events(&namespace.pool, &namespace.url).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn of_postgres() {
    let namespace = Namespace::postgres("large_events").await;
    large_events(&namespace.pool, &namespace.url).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn of_mariadb() {
    let namespace = Namespace::mariadb("large_events").await;
    large_events(&namespace.pool, &namespace.url).await;
    namespace.remove().await;
}

/// Reads in a process of its own, whose memory nobody else uses.
async fn large_events<D: Backend>(pool: &Pool<D>, url: &str) {
    insert(pool).await;
    let test = "data::sizes::in_a_process_of_its_own";
    let mut reader = Command::new(env::current_exe().unwrap());
    reader.args(["--exact", test, "--nocapture"]).env(URL, url).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut reader = reader.kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    let mut at_the_head = false;
    while let Some(line) = timeout(PATIENCE * 3, lines.next_line()).await.expect("the reader gets on").unwrap() {
        eprintln!("{line}");
        if line == AT_THE_HEAD {
            at_the_head = true;
            insert(pool).await;
        }
    }
    assert!(reader.wait().await.unwrap().success() && at_the_head, "the reader failed");
}

/// Does nothing unless one of the other tests started it.
#[tokio::test]
async fn in_a_process_of_its_own() {
    let Ok(url) = env::var(URL) else { return };
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("postgres") => read::<Postgres>(&url).await,
        Some("mysql") => read::<MySql>(&url).await,
        _ => read::<Sqlite>(&url).await,
    }
}

/// One stream takes everything while another one keeps the first event in hand: what was there before them, and what comes
/// when they are at the head.
async fn read<D: Backend>(url: &str) {
    let pool = D::pool(url).unwrap();
    let metrics = metrics();
    let options = EventsTableOptions::new("events").ring_bytes(RING_BYTES).metrics(&metrics);
    let table = EventsTable::open(&pool, options).await.unwrap();
    let mut slow = table.open_stream(StreamOptions::new()).await.unwrap().events;
    let mut quick = table.open_stream(StreamOptions::new()).await.unwrap().events;
    let _in_hand = slow.next().await.unwrap().unwrap();
    // Nobody takes more before the first page has ended: it may not hold them all.
    let pages = metrics.events_table("events").cache_misses;
    eventually("the end of a page", PATIENCE, || async { pages.get() > 0 }).await;
    take(&mut quick, 1..=EVENTS).await;
    stdout().write_all(format!("\n{AT_THE_HEAD}\n").as_bytes()).unwrap();
    take(&mut quick, EVENTS + 1..=2 * EVENTS).await;
    let peak = peak_megabytes();
    eprintln!("{}: at most {peak} MB for {} MB of events", dialect::<D>(), 2 * EVENTS * MEGABYTES);
    assert!(peak < MOST_MEGABYTES, "{peak} MB");
}

/// Takes the events with these ids.
async fn take(stream: &mut BoxEventStream, ids: RangeInclusive<usize>) {
    for id in ids {
        let event = timeout(PATIENCE, stream.next()).await.expect("the next event").unwrap().unwrap();
        assert_eq!((event.id_as_i64().unwrap(), event.metadata().len()), (id as i64, MEGABYTES << 20));
    }
}

/// Inserts large events, which only the server has as a whole.
async fn insert<D: Backend>(pool: &Pool<D>) {
    let size = MEGABYTES << 20;
    let metadata = match dialect::<D>() {
        "PostgreSQL" => format!("convert_to(repeat('x', {size}), 'UTF8')"),
        "MySQL" => format!("repeat('x', {size})"),
        _ => format!("zeroblob({size})"),
    };
    for _ in 0..EVENTS {
        run(pool, &format!("insert into events (foreign_id, type, metadata) values ('large', 1, {metadata})")).await;
    }
}

fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
