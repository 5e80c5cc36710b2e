//! Events that cannot be stored, and databases that cannot be written or are gone.

use std::{fs, net::TcpListener, time::Duration};

use reflex_core::{NewEvent, StreamOptions};
use reflex_sql::{EventsTable, EventsTableOptions};
use reflex_testing::collect;
use sqlx::{
    MySql, Postgres, Sqlite,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    bench::{Bench, cause, on, options, with_causes},
    database::{Backend, Result, with_tables},
};

on!(each:
    a_placeholder_is_refused_and_nothing_is_stored,
    metadata_needs_a_column,
    a_type_that_does_not_fit_is_named,
    many_events_keep_their_order,
);

async fn insert<D: Backend>(bench: &Bench<D>, events: Vec<NewEvent>) -> Result<()> {
    <D as Backend>::insert(&bench.namespace.pool, &bench.table, events).await
}

async fn refused<D: Backend>(bench: &Bench<D>, events: Vec<NewEvent>) -> String {
    let error = insert(bench, events).await.expect_err("the event cannot be stored");
    with_causes(error.as_error())
}

async fn a_placeholder_is_refused_and_nothing_is_stored<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let message = refused(&bench, vec![NewEvent::new("a", 1), NewEvent::new("0", 0)]).await;
    assert!(message.contains("position 1") && message.contains("`events`"), "{message}");
    assert_eq!(bench.table.head().await?, None);
    insert(&bench, vec![NewEvent::new("0", 1), NewEvent::new("1", 0)]).await?;
    assert_eq!(bench.follow().await?.names(2).await, ["0", "1"]);
    Ok(())
}

async fn metadata_needs_a_column<D: Backend>() -> Result<()> {
    let namespace = with_tables::<D>().await?;
    D::execute(&namespace.pool, "alter table events drop column metadata").await?;
    D::execute(&namespace.pool, "alter table events drop column trace").await?;
    let bench = Bench::open(namespace, options()).await?;
    let message = refused(&bench, vec![NewEvent::new("a", 1).metadata(b"x")]).await;
    assert!(message.contains("position 0") && message.contains("no column"), "{message}");
    insert(&bench, vec![NewEvent::new("a", 1), NewEvent::new("b", 1)]).await?;
    assert_eq!(bench.follow().await?.names(2).await, ["a", "b"]);
    Ok(())
}

/// Written with plain SQL into a column that is wider than a type.
async fn a_type_that_does_not_fit_is_named<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    for widen in ["alter table events alter column type type bigint", "alter table events modify type bigint not null"]
    {
        // Each is the other databases' syntax error, and SQLite needs neither.
        let _ = bench.execute(widen).await;
    }
    bench.add("fits").await?;
    bench.execute("insert into events (foreign_id, type) values ('wide', 4294967296)").await?;
    let mut reader = bench.read(StreamOptions::new().after(1)).await?;
    let error = reader.fails().await;
    assert!(!error.is_expected());
    let message = with_causes(&error);
    assert!(message.contains("event 2") && message.contains("4294967296"), "{message}");
    assert!(cause(&error).as_database().is_none());
    Ok(())
}

async fn many_events_keep_their_order<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(12_000).await?;
    let names = bench.follow().await?.names(12_000).await;
    assert!(names.iter().enumerate().all(|(at, name)| *name == format!("event-{}", at + 1)));
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_takes_no_nul_in_a_foreign_id() -> Result<()> {
    let bench = Bench::<Postgres>::new().await?;
    let message = refused(&bench, vec![NewEvent::new("a\0b", 1)]).await;
    assert!(message.contains("insert an event into table `events`") && message.contains("0x00"), "{message}");
    insert(&bench, vec![NewEvent::new("a", 1)]).await?;
    assert_eq!(bench.follow().await?.names(1).await, ["a"]);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn postgres_takes_no_text_for_an_integer() -> Result<()> {
    let bench = Bench::<Postgres>::new().await?;
    bench.execute("alter table events alter foreign_id type bigint using 0").await?;
    let bench = Bench::open(bench.namespace, options()).await?;
    let message = refused(&bench, vec![NewEvent::new("order-12", 1)]).await;
    assert!(message.contains("`events`") && message.contains("order-12"), "{message}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn mariadb_takes_no_text_for_an_integer() -> Result<()> {
    let bench = Bench::<MySql>::new().await?;
    bench.execute("alter table events modify foreign_id bigint not null").await?;
    let bench = Bench::open(bench.namespace, options()).await?;
    let message = refused(&bench, vec![NewEvent::new("order-12", 1)]).await;
    assert!(message.contains("`events`") && message.contains("order-12"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_read_only_database_can_be_read_and_says_why_it_is_not_written() -> Result<()> {
    let bench = Bench::<Sqlite>::new().await?;
    bench.append(2).await?;
    let connect = (*bench.namespace.pool.connect_options()).clone().read_only(true);
    let pool = SqlitePoolOptions::new().connect_with(connect).await?;
    let table = EventsTable::open(&pool, options()).await?;
    assert_eq!(collect(&table, StreamOptions::new()).await?.len(), 2);
    let mut tx = pool.begin().await?;
    let error = table.insert(&mut tx, NewEvent::new("a", 1)).await.expect_err("it is read-only");
    let message = with_causes(&error);
    assert!(message.contains("`events`") && message.contains("readonly"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("none.sqlite");
    let connect = SqliteConnectOptions::new().filename(&file);
    let pool = SqlitePoolOptions::new().connect_lazy_with(connect);
    let error = EventsTable::open(&pool, "events").await.expect_err("there is no file");
    let message = with_causes(&error);
    let attempted = format!("connect to {} to open events table `events`", file.display());
    assert!(message.contains(&attempted) && message.contains("unable to open database file"), "{message}");
    Ok(())
}

/// What has a file open goes on with it, and would wait for ever for what others write to another one.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_replaced_or_taken_away_is_an_error() -> Result<()> {
    let bench = Bench::<Sqlite>::new().await?;
    bench.append(1).await?;
    let mut reader = bench.follow().await?;
    reader.take(1).await;
    let file = bench.namespace.pool.connect_options().get_filename().to_owned();
    let other = file.with_extension("restored");
    fs::copy(&file, &other)?;
    fs::rename(&other, &file)?;
    let message = with_causes(&reader.fails().await);
    assert!(
        message.contains(&format!("{} with table `events` was taken away or replaced", file.display())),
        "{message}"
    );
    fs::remove_file(&file)?;
    let error = bench.table.open_stream(StreamOptions::new()).await.expect_err("the file is gone");
    assert!(with_causes(&error).contains("No such file"), "{error:?}");
    Ok(())
}

/// Nothing listens on the port.
#[tokio::test]
async fn a_database_out_of_reach_is_reported_by_the_deadline() -> Result<()> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for message in unreachable(port).await? {
        assert!(message.contains("`events`") && message.contains("out of reach"), "{message}");
    }
    Ok(())
}

/// It takes connections and says nothing.
#[tokio::test]
async fn a_database_that_does_not_answer_is_reported_by_the_deadline() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    for message in unreachable(listener.local_addr()?.port()).await? {
        assert!(message.contains("`events`") && message.contains("no answer within 0.3 s"), "{message}");
    }
    Ok(())
}

async fn unreachable(port: u16) -> Result<[String; 2]> {
    let options = EventsTableOptions::new("events").deadline(Duration::from_millis(300));
    let postgres = sqlx::PgPool::connect_lazy(&format!("postgres://nobody@127.0.0.1:{port}/nothing"))?;
    let mysql = sqlx::MySqlPool::connect_lazy(&format!("mysql://nobody@127.0.0.1:{port}/nothing"))?;
    let (postgres, mysql) =
        tokio::join!(EventsTable::open(&postgres, options.clone()), EventsTable::open(&mysql, options));
    Ok([
        with_causes(&postgres.expect_err("there is no database")),
        with_causes(&mysql.expect_err("there is no database")),
    ])
}
