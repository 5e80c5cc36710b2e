//! Two runners of one transactional consumer, and transactions that end in a way of their own.

use std::{env, time::Duration};

use futures_util::future::join_all;
use reflex_core::{Consumer, CursorStore, Event, HandlerError, Progress, Spec, run};
use reflex_sql::{CursorsTable, CursorsTableOptions, TransactionalCursors};
use reflex_testing::{
    conformance::{CursorCapabilities, cursor_store},
    eventually,
};
use sqlx::{MySql, Postgres, Sqlite, pool::PoolOptions};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    bench::{PATIENCE, Session, on, with_causes},
    database::{Backend, Result, with_tables},
    transactional::{Shop, event, write, writer},
};

on!(each:
    of_two_runners_one_is_fenced,
    the_second_of_two_first_events_is_fenced,
    a_moved_cursor_fences_the_handler_out,
    a_moved_cursor_fences_skipped_events_out,
    what_is_not_after_the_cursor_is_refused,
);

on!(servers:
    a_lost_connection_undoes_both,
    an_attempt_after_a_lost_commit_takes_effect_once,
    a_connection_is_kept_only_while_events_come,
    a_wait_for_a_connection_that_is_in_vain_names_the_server,
);

/// Both see all events, and both believe that there is no cursor.
async fn of_two_runners_one_is_fenced<D: Backend>() -> Result<()> {
    const EVENTS: i64 = 100;
    let shop = Shop::<D>::with_events(0).await?;
    let (ends, mut ended) = mpsc::channel(2);
    let mut runs = JoinSet::new();
    for _ in 0..2 {
        let cursors = shop.other_cursors().await?;
        let (began, mut begun) = mpsc::channel(1);
        let store = Began { inner: cursors.clone(), began };
        let mut spec = Spec::new(shop.bench.table.clone(), store, writer(&cursors));
        let ends = ends.clone();
        runs.spawn(async move {
            let Err(error) = run(&mut spec).await;
            ends.send(error).await
        });
        begun.recv().await;
    }
    shop.bench.append(EVENTS as usize).await?;
    let error = timeout(PATIENCE * 3, ended.recv()).await?.expect("a run ends");
    assert!(error.is_fenced(), "{}", with_causes(&error));
    assert!(with_causes(&error).contains("another runner of the same consumer"), "{}", with_causes(&error));
    let all = || async { shop.stored().await.is_ok_and(|stored| stored == Some(EVENTS)) };
    eventually("the other runner to finish", PATIENCE * 3, all).await;
    assert!(ended.try_recv().is_err(), "the other runner goes on");
    shop.assert(1..=EVENTS, Some(EVENTS)).await
}

/// A store that tells when a run has read its cursor.
struct Began<D: Backend> {
    inner: TransactionalCursors<D>,
    began: mpsc::Sender<()>,
}

impl<D: Backend> CursorStore for Began<D> {
    async fn get(&self, consumer: &str) -> reflex_core::Result<Option<reflex_core::Cursor>> {
        let stored = self.inner.get(consumer).await;
        self.began.try_send(()).ok();
        stored
    }

    async fn set(&self, consumer: &str, cursor: &reflex_core::Cursor) -> reflex_core::Result<()> {
        self.inner.set(consumer, cursor).await
    }
}

async fn the_second_of_two_first_events_is_fenced<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let mut consumers = Vec::new();
    for _ in 0..4 {
        let cursors = shop.other_cursors().await?;
        cursors.get("shop").await?;
        consumers.push(writer(&cursors));
    }
    let results = join_all(consumers.iter_mut().map(|consumer| consumer.consume(event(1)))).await;
    let (done, fenced): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), fenced.len()), (1, 3));
    assert!(fenced.iter().all(|result| result.as_ref().is_err_and(|error| error.is_fenced())), "{fenced:?}");
    shop.assert([1], Some(1)).await
}

async fn a_moved_cursor_fences_the_handler_out<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    shop.cursors.get("shop").await?;
    let mut consumer = writer(&shop.cursors);
    assert_eq!(consumer.consume(event(1)).await?, Progress::Done);
    let elsewhere = shop.other_cursors().await?;
    elsewhere.get("shop").await?;
    assert_eq!(writer(&elsewhere).consume(event(2)).await?, Progress::Done);
    for id in [2, 3] {
        let error = consumer.consume(event(id)).await.expect_err("another runner was here");
        assert!(error.is_fenced(), "{error:?}");
    }
    shop.assert([1, 2], Some(2)).await
}

async fn a_moved_cursor_fences_skipped_events_out<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    shop.cursors.get("shop").await?;
    shop.cursors.set("shop", &1.into()).await?;
    let elsewhere = shop.other_cursors().await?;
    elsewhere.get("shop").await?;
    assert_eq!(writer(&elsewhere).consume(event(2)).await?, Progress::Done);
    let error = shop.cursors.set("shop", &3.into()).await.expect_err("another runner was here");
    assert!(error.is_fenced(), "{error:?}");
    shop.assert([2], Some(2)).await
}

async fn what_is_not_after_the_cursor_is_refused<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    shop.cursors.get("shop").await?;
    let mut consumer = writer(&shop.cursors);
    assert_eq!(consumer.consume(event(5)).await?, Progress::Done);
    for id in [5, 3] {
        let error = consumer.consume(event(id)).await.expect_err("it is not after the cursor");
        assert!(error.is_fenced(), "{error:?}");
    }
    shop.assert([5], Some(5)).await
}

/// What a handler asks for its own session's number, and how another session ends that one.
fn end_of_session<D: Backend>() -> (&'static str, &'static str) {
    match D::NAME {
        "PostgreSQL" => ("select pg_backend_pid()::bigint", "select pg_terminate_backend("),
        _ => ("select cast(connection_id() as signed)", "kill ("),
    }
}

/// A consumer that loses its connection in front of the first commit.
fn unlucky<D: Backend>(shop: &Shop<D>) -> impl Consumer + use<D> {
    let pool = shop.bench.namespace.pool.clone();
    let mut lucky = false;
    shop.cursors.consumer("shop", move |mut tx, event: Event| {
        let pool = pool.clone();
        let kill = !std::mem::replace(&mut lucky, true);
        async move {
            write(&mut tx, &event).await?;
            if kill {
                let (number, end) = end_of_session::<D>();
                let number = D::number(&mut tx, number).await?;
                D::run(&mut *pool.acquire().await?, &format!("{end}{number})")).await?;
            }
            Ok(())
        }
    })
}

async fn a_lost_connection_undoes_both<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    let error = shop.run(unlucky(&shop)).await;
    assert!(!error.is_head_reached() && !error.is_fenced(), "{}", with_causes(&error));
    assert!(error.to_string().contains("commit the transaction of consumer `shop`"), "{}", with_causes(&error));
    shop.assert([], None).await?;
    shop.run_to_head().await?;
    shop.assert(1..=2, Some(2)).await
}

/// As a retry around the consumer does it.
async fn an_attempt_after_a_lost_commit_takes_effect_once<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    shop.cursors.get("shop").await?;
    let mut consumer = unlucky(&shop);
    assert!(consumer.consume(event(1)).await.is_err());
    shop.assert([], None).await?;
    for id in [1, 2] {
        assert_eq!(consumer.consume(event(id)).await?, Progress::Done);
    }
    shop.assert(1..=2, Some(2)).await
}

async fn a_connection_is_kept_only_while_events_come<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let pool = &shop.bench.namespace.pool;
    let held = || pool.size() as usize - pool.num_idle();
    shop.cursors.get("shop").await?;
    eventually("the connections to come back", PATIENCE, || async { held() == 0 }).await;
    let mut consumer = writer(&shop.cursors);
    assert_eq!(consumer.consume(event(1)).await?, Progress::Done);
    assert_eq!(held(), 1);
    consumer.ready().await;
    assert_eq!(consumer.advance().await?, Progress::Pending);
    eventually("the connection to come back", PATIENCE, || async { held() == 0 }).await;
    Ok(())
}

/// The update of a cursor that another transaction has moved fails otherwise where snapshots are kept.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_conflict_of_snapshots_is_a_fence_on_postgres() -> Result<()> {
    for level in ["read committed", "repeatable read", "serializable"] {
        let shop = Shop::<Postgres>::with_events(0).await?;
        let schema: String =
            sqlx::query_scalar("select current_schema()").fetch_one(&shop.bench.namespace.pool).await?;
        let options: sqlx::postgres::PgConnectOptions = env::var("REFLEX_TEST_POSTGRES_URL")?.parse()?;
        let options = options.options([("search_path", schema.as_str()), ("default_transaction_isolation", level)]);
        let pool = sqlx::postgres::PgPoolOptions::new().connect_with(options).await?;
        let cursors = TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?);
        cursors.set("shop", &1.into()).await?;
        cursors.get("shop").await?;
        let mut session = shop.bench.session().await?;
        let pid = session.number("select pg_backend_pid()::bigint").await?;
        session.run("begin; update cursors set last_event_id = 9 where id = 'shop'").await?;
        let mut consumer = writer(&cursors);
        let (consumed, committed) =
            tokio::join!(consumer.consume(event(2)), commit_meanwhile(&shop, &mut session, pid));
        committed?;
        let error = consumed.expect_err("another transaction moved the cursor");
        assert!(error.is_fenced(), "{level}: {error:?}");
        shop.assert([], Some(9)).await?;
    }
    Ok(())
}

/// Commits when somebody waits for what the session holds.
async fn commit_meanwhile(shop: &Shop<Postgres>, session: &mut Session<Postgres>, pid: i64) -> Result<()> {
    let pool = &shop.bench.namespace.pool;
    let waiting = format!("select count(*) from pg_stat_activity where {pid} = any(pg_blocking_pids(pid))");
    let waits = || async { Postgres::numbers(pool, &waiting).await.is_ok_and(|count| count == [1]) };
    eventually("the consumer to wait for the cursor", PATIENCE, waits).await;
    session.run("commit").await
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn a_cursor_that_stays_locked_is_a_fence_on_mariadb() -> Result<()> {
    let shop = Shop::<MySql>::with_events(0).await?;
    shop.cursors.set("shop", &1.into()).await?;
    let options = shop.bench.namespace.pool.connect_options();
    let pool = sqlx::mysql::MySqlPoolOptions::new().after_connect(|conn, _| {
        Box::pin(async move { sqlx::query("set innodb_lock_wait_timeout = 1").execute(conn).await.map(drop) })
    });
    let pool = pool.connect_with((*options).clone()).await?;
    let cursors = TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?);
    cursors.get("shop").await?;
    let mut session = shop.bench.session().await?;
    session.run("begin").await?;
    session.run("update cursors set last_event_id = 9 where id = 'shop'").await?;
    let error = writer(&cursors).consume(event(2)).await.expect_err("another transaction holds the cursor");
    assert!(error.is_fenced(), "{error:?}");
    session.run("rollback").await?;
    shop.assert([], Some(1)).await
}

async fn a_wait_for_a_connection_that_is_in_vain_names_the_server<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let server = shop.bench.namespace.pool.connect_options();
    let (soon, late) = (Duration::from_secs(3), PATIENCE);
    for (pool_gives_up, deadline, says) in [(soon, late, "is the server running"), (late, soon, "no answer within 3 s")]
    {
        let only_one = PoolOptions::<D>::new().max_connections(1).acquire_timeout(pool_gives_up);
        let pool = only_one.connect_with((*server).clone()).await?;
        let options = CursorsTableOptions::new("cursors").deadline(deadline);
        let cursors = TransactionalCursors::new(CursorsTable::open(&pool, options).await?);
        cursors.get("shop").await?;
        let _taken = pool.acquire().await?;
        let error = writer(&cursors).consume(event(1)).await.expect_err("there is no other connection");
        let message = with_causes(error.as_error());
        assert!(message.contains("127.0.0.1") && message.contains(says), "{message}");
    }
    Ok(())
}

/// A commit that gets no answer before its deadline, and is done nevertheless.
struct SlowCommit {
    shop: Shop<Postgres>,
    cursors: TransactionalCursors<Postgres>,
    /// Holds up commits that wrote effects.
    session: Session<Postgres>,
    pid: i64,
}

impl SlowCommit {
    async fn new() -> Result<Self> {
        let shop = Shop::<Postgres>::with_events(0).await?;
        let trigger = "create function hold_up() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock_shared(hashtext(current_schema())); return null; end $$;
            create constraint trigger hold_up after insert on effects
            deferrable initially deferred for each row execute function hold_up()";
        shop.bench.execute(trigger).await?;
        let mut session = shop.bench.session().await?;
        session.run("select pg_advisory_lock(hashtext(current_schema()))").await?;
        let pid = session.number("select pg_backend_pid()::bigint").await?;
        let options = CursorsTableOptions::new("cursors").deadline(Duration::from_secs(10));
        let cursors = TransactionalCursors::new(CursorsTable::open(&shop.bench.namespace.pool, options).await?);
        cursors.get("shop").await?;
        Ok(Self { shop, cursors, session, pid })
    }

    async fn go_on(&mut self) -> Result<()> {
        self.session.run("select pg_advisory_unlock(hashtext(current_schema()))").await
    }

    /// Waits until so many are held up, one by the other.
    async fn holds_up(&self, count: i64) {
        let waiting = format!(
            "with recursive waiting as (select {} as pid union
                select a.pid from pg_stat_activity a join waiting w on w.pid = any(pg_blocking_pids(a.pid)))
             select count(*) - 1 from waiting",
            self.pid
        );
        let pool = &self.shop.bench.namespace.pool;
        let waits = || async { Postgres::numbers(pool, &waiting).await.is_ok_and(|found| found == [count]) };
        eventually("others to wait", PATIENCE, waits).await;
    }
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_commit_without_an_answer_that_is_done_is_not_done_again_on_postgres() -> Result<()> {
    let mut slow = SlowCommit::new().await?;
    let mut consumer = writer(&slow.cursors);
    assert!(consumer.consume(event(1)).await.is_err(), "the commit is held up");
    slow.go_on().await?;
    let done = || async { slow.shop.stored().await.is_ok_and(|stored| stored == Some(1)) };
    eventually("the commit", PATIENCE, done).await;
    assert_eq!(consumer.consume(event(1)).await?, Progress::Done);
    slow.cursors.set("shop", &1.into()).await?;
    assert_eq!(consumer.consume(event(2)).await?, Progress::Done);
    slow.shop.assert([1, 2], Some(2)).await
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_commit_that_is_done_while_it_is_tried_again_is_no_fence_on_postgres() -> Result<()> {
    let mut slow = SlowCommit::new().await?;
    let mut consumer = writer(&slow.cursors);
    assert!(consumer.consume(event(1)).await.is_err(), "the commit is held up");
    slow.holds_up(1).await;
    let again = tokio::spawn(async move { (consumer.consume(event(1)).await, consumer) });
    slow.holds_up(2).await;
    slow.go_on().await?;
    let (again, mut consumer) = again.await?;
    assert_eq!(again?, Progress::Done);
    assert_eq!(consumer.consume(event(2)).await?, Progress::Done);
    slow.shop.assert([1, 2], Some(2)).await
}

/// A constraint that is looked at by the commit.
#[tokio::test]
async fn a_commit_that_is_refused_undoes_both_on_sqlite() -> Result<()> {
    Box::pin(a_commit_that_is_refused_undoes_both::<Sqlite>()).await
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_commit_that_is_refused_undoes_both_on_postgres() -> Result<()> {
    Box::pin(a_commit_that_is_refused_undoes_both::<Postgres>()).await
}

async fn a_commit_that_is_refused_undoes_both<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    shop.bench.execute("create table accounts (id integer primary key)").await?;
    let orders = "create table orders (account integer references accounts (id) deferrable initially deferred)";
    shop.bench.execute(orders).await?;
    let consumer = shop.cursors.consumer("shop", |mut tx, event: Event| async move {
        write(&mut tx, &event).await?;
        D::run(&mut tx, "insert into orders (account) values (7)").await
    });
    let error = shop.run(consumer).await;
    assert!(error.to_string().contains("commit the transaction"), "{}", with_causes(&error));
    shop.assert([], None).await?;
    shop.run_to_head().await?;
    shop.assert(1..=2, Some(2)).await
}

/// The table's reader and the consumer take turns.
#[tokio::test]
async fn one_connection_is_enough_on_sqlite() -> Result<()> {
    let shop = Shop::<Sqlite>::with_events(20).await?;
    let options = shop.bench.namespace.pool.connect_options();
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with((*options).clone()).await?;
    let table = reflex_sql::EventsTable::open(&pool, "events").await?;
    let cursors = TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?);
    let mut spec = Spec::new(table, cursors.clone(), writer(&cursors)).to_head();
    let Err(error) = timeout(PATIENCE * 3, Box::pin(run(&mut spec))).await?;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.assert(1..=20, Some(20)).await
}

/// As SQLite does by itself when a disk is full. The only connection of a pool has to be fit for the next transaction.
#[tokio::test]
async fn a_transaction_that_is_gone_leaves_a_fit_connection_on_sqlite() -> Result<()> {
    let shop = Shop::<Sqlite>::with_events(0).await?;
    let options = shop.bench.namespace.pool.connect_options();
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect_with((*options).clone()).await?;
    let cursors = TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?);
    let mut consumer = cursors.consumer("shop", |mut tx, event: Event| async move {
        write(&mut tx, &event).await?;
        if event.id() != &3.into() {
            Sqlite::run(&mut tx, "rollback").await?;
        }
        if event.id() == &2.into() { Err(HandlerError::new("the disk is full")) } else { Ok(()) }
    });
    cursors.get("shop").await?;
    assert!(consumer.consume(event(1)).await.is_err());
    assert!(consumer.consume(event(2)).await.is_err());
    assert_eq!(consumer.consume(event(3)).await?, Progress::Done);
    shop.assert([3], Some(3)).await
}

macro_rules! conforms {
    ($database:ty, $text:expr, $exact_names:expr) => {
        for text in [None, Some($text)] {
            let factory = |_case| async move {
                let namespace = with_tables::<$database>().await?;
                if let Some(sql) = text {
                    <$database>::execute(&namespace.pool, sql).await?;
                }
                Ok(move || {
                    let pool = namespace.pool.clone();
                    let _ = &namespace;
                    async move { Ok(TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?)) }
                })
            };
            let capabilities = CursorCapabilities { text: text.is_some(), exact_names: $exact_names };
            cursor_store(factory, capabilities).await;
        }
    };
}

#[tokio::test]
async fn conforms_on_sqlite() {
    let text = "drop table cursors; create table cursors (id text primary key, last_event_id text, updated_at text)";
    conforms!(Sqlite, text, true);
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn conforms_on_postgres() {
    conforms!(Postgres, "alter table cursors alter column last_event_id type text", true);
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn conforms_on_mariadb() {
    conforms!(MySql, "alter table cursors modify last_event_id varchar(255) not null", false);
}
