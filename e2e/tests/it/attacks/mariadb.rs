use std::{
    io,
    sync::{Arc, Mutex},
};

use reflex_e2e::Backend;
use reflex_migrations::up;
use reflex_sql::{EventsTable, EventsTableOptions, GapMode};
use reflex_testing::eventually;
use sqlx::{MySql, Pool};
use test_servers::{MariaDb, MariaDbOptions};

use super::{Following, ONE, goes_on, message, on, refused, session};
use crate::support::{PATIENCE, metrics, run};

async fn server(options: MariaDbOptions) -> (Arc<MariaDb>, Pool<MySql>) {
    let server = Arc::new(tokio::task::spawn_blocking(move || options.start()).await.unwrap().unwrap());
    let pool = MySql::pool(&server.url()).unwrap();
    up(&pool).await.unwrap();
    (server, pool)
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_prepared_xa_transaction_is_waited_for_over_a_restart() {
    let (server, pool) = server(MariaDb::options()).await;
    let mut following = Following::start(&pool).await;
    session(&pool, &["xa start 'pending'", ONE, "xa end 'pending'", "xa prepare 'pending'"]).await;
    run(&pool, ONE).await;
    following.waits().await;

    on(&server, |server| server.restart()).await;
    assert!(!following.fails().await.is_expected());
    following.again().await;
    following.waits().await;
    let mut opened_later = Following::start(&pool).await;
    opened_later.waits().await;

    run(&pool, "xa commit 'pending'").await;
    goes_on(&mut following, &pool, 2).await;
    goes_on(&mut opened_later, &pool, 2).await;
}

/// Its session is gone, and with it the metadata lock. Prepared transactions delay every table of a server, so this one is
/// not for sharing.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_detached_xa_transaction_is_waited_for() {
    let (_server, pool) = server(MariaDb::options()).await;
    let mut following = Following::start(&pool).await;
    for (end, before, after) in [("commit", 0, 1..=2), ("rollback", 2, 4..=4)] {
        let mut writer = MySql::connect(&pool).await.unwrap();
        for statement in ["xa start 'pending'", ONE] {
            MySql::run_sql(&mut writer, statement.to_owned()).await.unwrap();
        }
        run(&pool, ONE).await;
        following.waits().await;
        for statement in ["xa end 'pending'", "xa prepare 'pending'"] {
            MySql::run_sql(&mut writer, statement.to_owned()).await.unwrap();
        }
        following.waits().await;
        drop(writer);
        following.waits().await;
        detached(&pool).await;
        let mut opened_later = Following::start(&pool).await;
        for id in 1..=before {
            assert_eq!(opened_later.next().await, id);
        }
        opened_later.waits().await;
        following.waits().await;
        run(&pool, &format!("xa {end} 'pending'")).await;
        for id in after {
            assert_eq!((following.next().await, opened_later.next().await), (id, id));
        }
    }
}

/// Waits until no session holds a lock on the table.
async fn detached(pool: &Pool<MySql>) {
    let held = "select thread_id from information_schema.metadata_lock_info where table_name = 'events'
        and lock_mode = 'MDL_SHARED_WRITE'";
    let gone = || async { sqlx::query(held).fetch_optional(pool).await.unwrap().is_none() };
    eventually("the session to leave", PATIENCE, gone).await;
}

/// Without the plugin nobody knows who writes: the choice is reported, or refused if it was not left to us.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn without_the_plugin_the_mode_is_reported_or_refused() {
    let (_server, pool) = server(MariaDb::options().without_metadata_lock_info()).await;
    let strict = EventsTableOptions::new("events").gap_mode(GapMode::MetadataLocks);
    refused(&pool, strict, &["`events`", "install soname 'metadata_lock_info'"]).await;

    let log = Log::default();
    let logging = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || logging.clone()).finish();
    let capturing = tracing::subscriber::set_default(subscriber);
    let metrics = metrics();
    let table = EventsTable::open(&pool, EventsTableOptions::new("events").metrics(&metrics)).await.unwrap();
    drop(capturing);
    let text = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(text.contains("WARN") && text.contains("placeholders") && text.contains("install soname"), "{text}");
    let gap_mode = metrics.events_table("events").gap_mode;
    assert_eq!(gap_mode.with_label_values(&["events", "noop"]).get(), 1);
    drop(table);

    session(&pool, &["begin", ONE, "rollback"]).await;
    run(&pool, ONE).await;
    assert_eq!(Following::start(&pool).await.next().await, 2);
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_read_only_server_is_refused_at_any_time() {
    let (_server, pool) = server(MariaDb::options()).await;
    let mut following = Following::start(&pool).await;
    run(&pool, ONE).await;
    assert_eq!(following.next().await, 1);
    run(&pool, "set global read_only = 1").await;
    refused(&pool, "events".into(), &["`events`", "read_only", "connect to the primary"]).await;
    // Somebody with more rights leaves a gap, which now nobody can prove dead.
    session(&pool, &["begin", ONE, "rollback"]).await;
    run(&pool, ONE).await;
    let error = following.fails().await;
    assert!(message(&error).contains("read_only"), "{}", message(&error));
}

/// A replica applies transactions in the order of their commits, and may be writable.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_replica_is_refused() {
    let (_server, pool) = server(MariaDb::options().setting("server-id", "2")).await;
    run(&pool, "change master to master_host = '127.0.0.1', master_port = 1, master_user = 'nobody'").await;
    run(&pool, "start slave").await;
    refused(&pool, "events".into(), &["`events`", "replica", "connect to the primary"]).await;
    run(&pool, "stop slave").await;
    Following::start(&pool).await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
