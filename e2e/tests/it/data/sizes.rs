//! Events of ten megabytes: they arrive in order, and few of them are in memory at once.

use std::{env, fs, process::Stdio};

use futures_util::StreamExt;
use reflex_core::StreamOptions;
use reflex_e2e::Backend;
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio::{process::Command, time::timeout};

use super::{dialect, open};
use crate::support::{Namespace, PATIENCE, run};

const MEGABYTES: usize = 10;
const EVENTS: usize = 24;

/// A page in hand, one that is read ahead, the ring, and what the process has anyway. All events come to 240 MB.
const MOST_MEGABYTES: u64 = 220;

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
    let size = MEGABYTES << 20;
    let metadata = match dialect::<D>() {
        "PostgreSQL" => format!("convert_to(repeat('x', {size}), 'UTF8')"),
        "MySQL" => format!("repeat('x', {size})"),
        _ => format!("zeroblob({size})"),
    };
    for _ in 0..EVENTS {
        run(pool, &format!("insert into events (foreign_id, type, metadata) values ('large', 1, {metadata})")).await;
    }
    let test = "data::sizes::in_a_process_of_its_own";
    let mut reader = Command::new(env::current_exe().unwrap());
    reader.args(["--exact", test, "--nocapture"]).env(URL, url).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE * 3, reader.output()).await.expect("the reader comes to an end").unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    eprintln!("{}", told.lines().find(|line| line.contains("at most")).unwrap_or_default());
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

/// One stream takes everything while another one keeps the first event in hand.
async fn read<D: Backend>(url: &str) {
    let pool = D::pool(url).unwrap();
    let table = open(&pool).await;
    let mut slow = table.open_stream(StreamOptions::new().to_head()).await.unwrap().events;
    let mut quick = table.open_stream(StreamOptions::new().to_head()).await.unwrap().events;
    let _in_hand = slow.next().await.unwrap().unwrap();
    for id in 1..=EVENTS as i64 {
        let event = timeout(PATIENCE, quick.next()).await.expect("the next event").unwrap().unwrap();
        assert_eq!((event.id_as_i64().unwrap(), event.metadata().len()), (id, MEGABYTES << 20));
    }
    assert!(quick.next().await.unwrap().unwrap_err().is_head_reached());
    let peak = peak_megabytes();
    eprintln!("{}: at most {peak} MB for {} MB of events", dialect::<D>(), EVENTS * MEGABYTES);
    assert!(peak < MOST_MEGABYTES, "{peak} MB");
}

fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}
