//! Across processes a stream hears of an insert, however seldom it looks by itself. Tables that are opened separately share no
//! more than those of two processes do.

use std::{env, time::Duration};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, EventsTableMetrics, NewEvent, StreamOptions};
use reflex_e2e::Backend;
use reflex_redis::RedisWakeUps;
use reflex_sql::{EventsTable, EventsTableOptions, Notify};
use reflex_testing::eventually;
use sqlx::{
    Pool, Postgres, Sqlite,
    postgres::{PgListener, PgNotification},
};
use test_servers::Proxy;
use tokio::{net::lookup_host, time::timeout};

use crate::support::{Namespace, PATIENCE, metrics, run};

const NEVER: Duration = Duration::from_secs(60 * 60);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The sessions of wake-ups in this database.
const SESSIONS: &str =
    "from pg_stat_activity where application_name = 'reflex wake-ups' and datname = current_database()";

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_processes_hear_of_each_others_commits() {
    let namespace = Namespace::postgres("wake_ups").await;
    others_are_heard(&namespace.pool, options()).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs MariaDB and Redis: cargo xtask test"]
async fn mariadb_processes_hear_of_each_others_commits_by_redis() {
    let namespace = Namespace::mariadb("wake_ups").await;
    others_are_heard(&namespace.pool, options().wake_ups(redis(&redis_url()))).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn sqlite_processes_hear_of_each_others_commits_by_redis() {
    let namespace = Namespace::sqlite().await;
    others_are_heard(&namespace.pool, options().wake_ups(redis(&redis_url()))).await;
    namespace.remove().await;
}

async fn others_are_heard<D: Backend>(pool: &Pool<D>, options: EventsTableOptions) {
    let mut reader = Reader::<D>::open(pool, options.clone()).await;
    let writer = EventsTable::<D>::open(pool, options.clone()).await.unwrap();
    for round in 0..5 {
        insert(&writer, pool, round).await.send();
        assert_eq!(reader.next().await, round.to_string());
    }
    // A process that ends at once.
    let writer = EventsTable::<D>::open(pool, options).await.unwrap();
    let notify = insert(&writer, pool, 5).await;
    drop(writer);
    notify.send_and_wait().await.unwrap();
    assert_eq!(reader.next().await, "5");
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn tables_of_the_same_name_do_not_wake_each_other() {
    let (here, there) = (Namespace::postgres("wake_ups_a").await, Namespace::postgres("wake_ups_b").await);
    run(&here.pool, "create schema other; create table other.events (like public.events including all)").await;
    let reader = Reader::open(&here.pool, options()).await;
    let mut neighbour = Reader::open(&here.pool, named("other.events")).await;
    let writers = [(&there.pool, "events"), (&here.pool, "other.events"), (&here.pool, "public.events")];
    for (pool, table) in writers {
        let writer = EventsTable::open(pool, named(table)).await.unwrap();
        insert(&writer, pool, 1).await.send_and_wait().await.unwrap();
    }
    assert_eq!(neighbour.next().await, "1");
    eventually("a hint", PATIENCE, || async { reader.metrics.wake_ups_received.get() >= 1 }).await;
    assert_eq!((reader.metrics.wake_ups_received.get(), neighbour.metrics.wake_ups_received.get()), (1, 1));
    drop((reader, neighbour));
    here.remove().await;
    there.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn commits_share_notifications_and_none_is_part_of_a_commit() {
    let namespace = Namespace::postgres("wake_ups_shared").await;
    let pool = &namespace.pool;
    let reader = Reader::open(pool, options()).await;
    let mut listener = PgListener::connect_with(pool).await.unwrap();
    listener.listen(&channel(pool).await).await.unwrap();
    let writer = EventsTable::open(pool, options()).await.unwrap();

    let mut conn = Postgres::connect(pool).await.unwrap();
    let pid = Postgres::rows(&mut conn, "select pg_backend_pid()::bigint".into()).await.unwrap()[0].0;
    Postgres::run_sql(&mut conn, "begin".into()).await.unwrap();
    let notify = writer.insert(&mut conn, NewEvent::new(1, 1)).await.unwrap();
    Postgres::run_sql(&mut conn, "commit".into()).await.unwrap();
    for _ in 0..10_000 {
        notify.clone().send();
    }
    let first = hint(&mut listener).await;
    assert_ne!(i64::from(first.process_id()), pid, "the writer's session notified");

    // What a notification by hand comes after is all that the ten thousand caused.
    run(pool, &format!("select pg_notify('{}', 'hint the end')", first.channel())).await;
    let mut more = 0;
    while hint(&mut listener).await.payload() != "hint the end" {
        more += 1;
    }
    assert!(more <= 1, "{more}");
    drop((reader, listener));
    namespace.remove().await;
}

/// The next one that is no test whether messages arrive.
async fn hint(listener: &mut PgListener) -> PgNotification {
    loop {
        let notification = timeout(PATIENCE, listener.recv()).await.expect("a notification").unwrap();
        if notification.payload().starts_with("hint") {
            return notification;
        }
    }
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn the_session_that_listens_holds_no_snapshot() {
    let namespace = Namespace::postgres("wake_ups_xmin").await;
    let mut reader = Reader::open(&namespace.pool, options()).await;
    let writer = EventsTable::open(&namespace.pool, options()).await.unwrap();
    insert(&writer, &namespace.pool, 1).await.send();
    assert_eq!(reader.next().await, "1");
    let idle = format!(
        "select count(*) {SESSIONS} and query like 'LISTEN%' and state = 'idle' and xact_start is null and
        backend_xmin is null and backend_xid is null"
    );
    eventually("one idle session", PATIENCE, || async { number(&namespace.pool, &idle).await == 1 }).await;

    drop((reader, writer));
    let left = format!("select count(*) {SESSIONS}");
    eventually("no session is left", PATIENCE, || async { number(&namespace.pool, &left).await == 0 }).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn what_was_committed_while_nobody_listened_is_found() {
    let namespace = Namespace::postgres("wake_ups_killed").await;
    let (pool, proxy) = namespace.far_away(Duration::ZERO).await;
    let proxy = proxy.unwrap();
    let mut reader = Reader::open(&pool, options()).await;
    proxy.refuse().await;
    kill_listener(&namespace.pool).await;
    reader.hears(false).await;
    insert_silently(&namespace.pool).await;
    reader.hears_nothing().await;
    proxy.accept().await.unwrap();
    assert_eq!(reader.next().await, "silent");
    reader.hears(true).await;
    drop(reader);
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn where_nobody_can_listen_polling_finds_all() {
    let namespace = Namespace::postgres("wake_ups_polling").await;
    let (pool, proxy) = namespace.far_away(Duration::ZERO).await;
    let proxy = proxy.unwrap();
    let mut reader = Reader::open(&pool, options().poll_interval(Duration::from_millis(50))).await;
    proxy.refuse().await;
    kill_listener(&namespace.pool).await;
    reader.hears(false).await;
    for _ in 0..3 {
        insert_silently(&namespace.pool).await;
        assert_eq!(reader.next().await, "silent");
    }
    assert_eq!(reader.metrics.wake_ups_connected.get(), 0);
    drop(reader);
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_stalled_connection_to_postgres_is_noticed() {
    let namespace = Namespace::postgres("wake_ups_stalled").await;
    let (pool, proxy) = namespace.far_away(Duration::ZERO).await;
    let reader = Reader::open(&pool, options()).await;
    stall_is_noticed(&proxy.unwrap(), reader, &namespace.pool).await;
    namespace.remove().await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_stalled_connection_to_redis_is_noticed() {
    let namespace = Namespace::sqlite().await;
    let url = redis_url();
    let server = url.trim_start_matches("redis://").trim_end_matches('/');
    let proxy = Proxy::start(lookup_host(server).await.unwrap().next().unwrap()).await.unwrap();
    let options = options().wake_ups(redis(&url.replace(server, &proxy.addr().to_string())));
    let reader = Reader::<Sqlite>::open(&namespace.pool, options).await;
    stall_is_noticed(&proxy, reader, &namespace.pool).await;
    namespace.remove().await;
}

async fn stall_is_noticed<D: Backend>(proxy: &Proxy, mut reader: Reader<D>, pool: &Pool<D>) {
    proxy.stall();
    reader.hears(false).await;
    insert_silently(pool).await;
    proxy.resume();
    assert_eq!(reader.next().await, "silent");
    reader.hears(true).await;
}

#[tokio::test]
async fn without_wake_ups_a_stream_looks_again_soon_after_it_found_something() {
    let namespace = Namespace::sqlite().await;
    let table = EventsTable::<Sqlite>::open(&namespace.pool, options()).await.unwrap();
    let mut stream = table.open_stream(StreamOptions::new()).await.unwrap().events;
    insert(&table, &namespace.pool, 1).await.send();
    assert_eq!(next(&mut stream).await, "1");
    for _ in 0..3 {
        insert_silently(&namespace.pool).await;
        assert_eq!(next(&mut stream).await, "silent");
    }
    namespace.remove().await;
}

/// A stream of a table that was opened for it alone, at the end of the table and listening.
struct Reader<D: Backend> {
    stream: BoxEventStream,
    metrics: EventsTableMetrics,
    _table: EventsTable<D>,
}

impl<D: Backend> Reader<D> {
    async fn open(pool: &Pool<D>, options: EventsTableOptions) -> Self {
        let metrics = metrics();
        let table = EventsTable::open(pool, options.metrics(&metrics)).await.unwrap();
        let stream = table.open_stream(StreamOptions::new()).await.unwrap().events;
        let metrics = metrics.events_table(&table.name());
        let reader = Self { stream, metrics, _table: table };
        reader.hears(true).await;
        reader
    }

    async fn hears(&self, expected: bool) {
        let hears = || async { self.metrics.wake_ups_connected.get() == i64::from(expected) };
        eventually(if expected { "wake-ups arrive" } else { "no wake-ups arrive" }, PATIENCE, hears).await;
    }

    async fn hears_nothing(&mut self) {
        let nothing = timeout(Duration::from_millis(100), self.stream.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }

    async fn next(&mut self) -> String {
        next(&mut self.stream).await
    }
}

async fn next(stream: &mut BoxEventStream) -> String {
    let event = timeout(PATIENCE, stream.next()).await.expect("the stream hears of it");
    event.unwrap().unwrap().foreign_id().to_owned()
}

fn options() -> EventsTableOptions {
    named("events")
}

fn named(table: &str) -> EventsTableOptions {
    EventsTableOptions::new(table).poll_interval(NEVER).wake_up_heartbeat(HEARTBEAT)
}

fn redis_url() -> String {
    env::var("REFLEX_TEST_REDIS_URL").expect("REFLEX_TEST_REDIS_URL is not set: run this by `cargo xtask test`")
}

fn redis(url: &str) -> RedisWakeUps {
    let prefix = format!("reflex_e2e_{}:", std::process::id());
    RedisWakeUps::new(&redis::Client::open(url).unwrap(), prefix).unwrap()
}

async fn insert<D: Backend>(table: &EventsTable<D>, pool: &Pool<D>, foreign_id: u32) -> Notify {
    let mut tx = pool.begin().await.unwrap();
    let notify = table.insert(&mut tx, NewEvent::new(foreign_id, 1)).await.unwrap();
    tx.commit().await.unwrap();
    notify
}

/// As a program without the library does it.
async fn insert_silently<D: Backend>(pool: &Pool<D>) {
    run(pool, "insert into events (foreign_id, type) values ('silent', 1)").await;
}

async fn number(pool: &Pool<Postgres>, sql: &str) -> i64 {
    Postgres::number(pool, sql).await.unwrap()
}

/// The channel that the one listening session listens to.
async fn channel(pool: &Pool<Postgres>) -> String {
    let sql = format!("select 1::bigint, split_part(query, '\"', 2) {SESSIONS} and query like 'LISTEN%'");
    let rows = Postgres::rows(&mut *pool.acquire().await.unwrap(), sql).await.unwrap();
    rows[0].1.clone().unwrap()
}

async fn kill_listener(pool: &Pool<Postgres>) {
    let killed = format!("select count(pg_terminate_backend(pid)) {SESSIONS} and query like 'LISTEN%'");
    assert_eq!(number(pool, &killed).await, 1);
}
