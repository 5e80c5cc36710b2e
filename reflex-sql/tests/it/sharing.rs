//! One reader for all streams of a table, and streams that fall behind it.

use std::time::Duration;

use futures_util::StreamExt;
use reflex_core::{NewEvent, Spec, StreamOptions, consumer_fn, run};
use reflex_sql::{CursorsTable, CursorsTableOptions, DialectName, EventsTable, ddl};
use reflex_testing::{await_cursor, eventually};
use sqlx::{AssertSqlSafe, PgPool, Postgres, sqlite::SqlitePoolOptions};

use crate::{
    bench::{Bench, PATIENCE, Reader, on, options},
    database::{Backend, Result, unique},
};

on!(each:
    many_idle_streams_cost_one_reader,
    streams_share_the_events_they_read,
    a_slow_stream_that_falls_behind_catches_up_in_order,
    a_reader_goes_away_with_its_last_stream,
    a_commit_in_this_process_wakes_the_streams,
    large_events_make_small_pages,
    the_smallest_pages_and_rings_work,
    the_backlog_counts_what_waits,
);

/// Beside a table with one stream, which is looked at as often.
async fn many_idle_streams_cost_one_reader<D: Backend>() -> Result<()> {
    let (crowd, single) = (Bench::<D>::new().await?, Bench::<D>::new().await?);
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(crowd.follow().await?);
    }
    let mut alone = single.follow().await?;
    let before = (crowd.metrics.polls.get(), single.metrics.polls.get());
    let waiting = futures_util::future::select_all(streams.iter_mut().map(|stream| stream.stream.next()));
    tokio::select! {
        (item, _, _) = waiting => panic!("a stream delivered {item:?} from an empty table"),
        () = alone.waits() => {}
    }
    let (crowd, single) = (crowd.metrics.polls.get() - before.0, single.metrics.polls.get() - before.1);
    assert!(crowd <= 3 * single + 3, "{crowd} looks for 100 streams, {single} for one");
    Ok(())
}

async fn streams_share_the_events_they_read<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let (mut one, clone) = (bench.follow().await?, bench.table.clone());
    let mut other = Reader::open(&clone, StreamOptions::new(), bench.metrics.clone()).await?;
    bench.append(10).await?;
    for (one, other) in one.take(10).await.iter().zip(other.take(10).await) {
        assert_eq!(one.foreign_id().as_ptr(), other.foreign_id().as_ptr());
    }
    assert_eq!(bench.metrics.events_deserialized.get(), 10);
    Ok(())
}

async fn a_slow_stream_that_falls_behind_catches_up_in_order<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::with(options().ring_events(10).page_size(7)).await?;
    bench.append(40).await?;
    let (mut slow, mut quick) = (bench.follow().await?, bench.follow().await?);
    let mut seen = slow.ids(35).await;
    for _ in 0..5 {
        bench.append(60).await?;
        quick.take(60).await;
        seen.extend(slow.ids(60).await);
    }
    seen.extend(slow.ids(5).await);
    assert_eq!(seen, (1..=340).collect::<Vec<_>>());
    slow.waits().await;
    Ok(())
}

async fn a_reader_goes_away_with_its_last_stream<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let (mut one, mut other) = (bench.follow().await?, bench.follow().await?);
    bench.append(1).await?;
    one.next().await;
    other.next().await;
    drop(one);
    other.waits().await;
    assert_eq!(bench.metrics.gap_listening.get(), 1);
    drop(other);
    let stopped = || async { bench.metrics.gap_listening.get() == 0 };
    eventually("the reader to stop", PATIENCE, stopped).await;
    let mut again = bench.read(StreamOptions::new().after(1)).await?;
    bench.append(1).await?;
    assert_eq!(again.ids(1).await, [2]);
    Ok(())
}

async fn a_commit_in_this_process_wakes_the_streams<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::with(options().poll_interval(Duration::from_secs(3_600))).await?;
    let mut reader = bench.follow().await?;
    for number in 1..=3 {
        bench.append(1).await?;
        assert_eq!(reader.ids(1).await, [number]);
    }
    Ok(())
}

async fn large_events_make_small_pages<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let large = |number: i32| NewEvent::new(number, 1).metadata(vec![7; 5 << 20]);
    for number in 0..16 {
        <D as Backend>::insert(&bench.namespace.pool, &bench.table, vec![large(number)]).await?;
    }
    let mut reader = bench.follow().await?;
    for number in 0..16 {
        let event = reader.next().await;
        assert_eq!((event.foreign_id(), event.metadata().len()), (number.to_string().as_str(), 5 << 20));
    }
    let pages = bench.metrics.cache_misses.get();
    assert!(pages >= 12, "{pages} pages for 80 MiB");
    Ok(())
}

async fn the_smallest_pages_and_rings_work<D: Backend>() -> Result<()> {
    for options in [
        options().page_size(1).ring_events(1),
        options().page_size(1).ring_events(0),
        options().ring_bytes(1),
        options().page_size(0).reader_connections(0),
    ] {
        let bench = Bench::<D>::with(options).await?;
        bench.append(20).await?;
        let (mut one, mut other) = (bench.follow().await?, bench.read(StreamOptions::new().after(5)).await?);
        bench.append(20).await?;
        assert_eq!(one.ids(40).await, (1..=40).collect::<Vec<_>>());
        assert_eq!(other.ids(35).await, (6..=40).collect::<Vec<_>>());
    }
    Ok(())
}

async fn the_backlog_counts_what_waits<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let none = bench.table.backlog(None).await?;
    assert_eq!((none.events, none.oldest), (0, None));
    bench.append(5).await?;
    bench.execute("insert into events (foreign_id, type) values ('0', 0)").await?;
    let all = bench.table.backlog(None).await?;
    assert_eq!(all.events, 5);
    let first = bench.follow().await?.next().await;
    assert_eq!(all.oldest, Some(first.timestamp()));
    assert_eq!(bench.table.backlog(Some(&3.into())).await?.events, 2);
    assert_eq!(bench.table.backlog(Some(&5.into())).await?.events, 0);
    let ahead = bench.table.backlog(Some(&1_000.into())).await.expect_err("there never was such an event");
    assert!(ahead.is_cursor_ahead(), "{ahead}");
    Ok(())
}

/// A pool whose sessions are known by a role of their own, and the query that counts those of readers.
async fn counted(bench: &Bench<Postgres>) -> Result<(PgPool, String)> {
    let role = unique();
    bench.execute(&format!("create role {role} login superuser")).await?;
    let connect = (*bench.namespace.pool.connect_options()).clone().username(&role);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(connect).await?;
    let count =
        format!("select count(*) from pg_stat_activity where usename = '{role}' and application_name = 'reflex'");
    Ok((pool, count))
}

/// Waits until no more sessions are there than these.
async fn fall_to(most: i64, count: &str, bench: &Bench<Postgres>) {
    let few = || async { Postgres::numbers(&bench.namespace.pool, count).await.is_ok_and(|count| count[0] <= most) };
    eventually("sessions to go away", PATIENCE, few).await;
}

/// The connections of the readers are closed, not only forgotten.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn the_connections_of_postgres_go_away() -> Result<()> {
    let bench = Bench::<Postgres>::new().await?;
    let (pool, count) = counted(&bench).await?;
    let table = EventsTable::open(&pool, bench.options.clone()).await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?);
    }
    bench.append(1).await?;
    for stream in &mut streams {
        stream.next().await;
    }
    let mut session = bench.session().await?;
    assert!((1..=4).contains(&session.number(&count).await?));
    drop((streams, table));
    fall_to(0, &count, &bench).await;
    Ok(())
}

/// Each of them stops its query somewhere in the middle.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn abandoned_streams_leave_no_sessions_behind() -> Result<()> {
    let bench = Bench::<Postgres>::new().await?;
    let (pool, count) = counted(&bench).await?;
    bench
        .execute(
            "insert into events (foreign_id, type, metadata)
                select id, 1, convert_to(repeat('m', 1000), 'UTF8') from generate_series(1, 20000) id",
        )
        .await?;
    let table = EventsTable::open(&pool, bench.options.clone()).await?;
    let after = |id: i64| Reader::open(&table, StreamOptions::new().after(id), bench.metrics.clone());
    let at_head = after(20_000).await?;
    for round in 0..100_i32 {
        after(i64::from(round)).await?.take(1 + 37 * usize::try_from(round)? % 2_000).await;
    }
    fall_to(4, &count, &bench).await;
    drop((at_head, table));
    fall_to(0, &count, &bench).await;
    Ok(())
}

/// The database exists in its one connection, which inserts, consumers and cursors share.
#[tokio::test]
async fn a_database_in_memory_with_one_connection_works() -> Result<()> {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    for statement in [
        ddl::events(DialectName::Sqlite, &options())?,
        ddl::cursors(DialectName::Sqlite, &CursorsTableOptions::new("cursors"))?,
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&pool).await?;
    }
    let events = EventsTable::open(&pool, options()).await?;
    let cursors = CursorsTable::open(&pool, "cursors").await?;
    let mut spec = Spec::new(events.clone(), cursors.clone(), consumer_fn("all", |_event| async { Ok(()) }));
    let consumer = tokio::spawn(async move { run(&mut spec).await.map(drop) });
    for number in 1..=20_i64 {
        let mut tx = pool.begin().await?;
        let notify = events.insert(&mut tx, NewEvent::new(number, 1)).await?;
        tx.commit().await?;
        notify.send();
        if number % 5 == 0 {
            await_cursor(&cursors, "all", number, PATIENCE).await?;
        }
    }
    consumer.abort();
    Ok(())
}
