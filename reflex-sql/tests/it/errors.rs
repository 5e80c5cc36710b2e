//! What an errors table does beyond the contract of a store of dead letters.

use std::time::Duration;

use prometheus::Registry;
use reflex_core::{AttemptStore, DeadLetterStore, Event, EventParts, HandlerError, Metrics, Selection, StreamOptions};
use reflex_sql::{ErrorStatus, ErrorsTable, ErrorsTableOptions, EventsTable, EventsTableOptions, ddl};
use reflex_testing::collect;
use sqlx::MySql;

use crate::{
    bench::{Reader, cause, on, with_causes},
    database::{Backend, Result},
    letters::{Letters, ids, options},
};

on!(each:
    missing_tables_are_named_with_the_remedy,
    a_missing_column_is_named,
    names_that_are_no_identifiers_are_refused,
    any_names_will_do,
    every_change_of_a_status_is_an_event,
    error_events_wake_the_streams_of_the_table,
    what_only_records_needs_no_events_table,
    the_row_and_its_event_are_one,
    resolved_errors_stay_as_history,
    two_tables_in_one_database_are_apart,
    a_lease_of_nothing_lets_others_take_over_at_once,
    the_bound_names_the_remedy,
    metrics_count_what_is_put_aside,
    texts_that_are_too_long,
    letters_are_listed_up_to_a_limit,
    a_letter_is_shown_with_how_far_it_is,
);

pub(crate) fn event(id: i64, foreign_id: &str) -> Event {
    Event::from(EventParts {
        id: id.into(),
        event_type: 1.into(),
        foreign_id,
        timestamp: chrono::Utc::now(),
        metadata: b"paid",
        trace: b"",
    })
}

fn no() -> HandlerError {
    HandlerError::new("no such card")
}

async fn redrive<D: Backend>(table: &ErrorsTable<D>) -> Result<()> {
    table.request("billing", &Selection::All).await?;
    while let Some(letter) = table.claim("billing").await? {
        table.settle(&letter, Ok(())).await?;
    }
    Ok(())
}

async fn missing_tables_are_named_with_the_remedy<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    for table in ["_events", "_attempts", "_positions", "_letters", ""].map(|end| format!("consumer_errors{end}")) {
        letters.execute(&format!("drop table {table}")).await?;
        let error = letters.reopen().await.expect_err("a table is missing");
        let message = with_causes(error.as_error());
        assert!(message.contains(&format!("`{table}` does not exist")), "{message}");
        assert!(message.contains("reflex migrate") && message.contains("reflex schema"), "{message}");
    }
    Ok(())
}

async fn a_missing_column_is_named<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    for options in [
        options().id_column("nowhere"),
        options().consumer_column("nowhere"),
        options().event_id_column("nowhere"),
        options().error_column("nowhere"),
        options().created_at_column("nowhere"),
        options().updated_at_column("nowhere"),
        options().status_column("nowhere"),
        options().events_table(EventsTableOptions::new("consumer_errors_events").metadata_column("nowhere")),
    ] {
        let error = ErrorsTable::open(&letters.namespace.pool, options).await.expect_err("there is no such column");
        assert!(error.is_schema() && error.to_string().contains("column `nowhere` is missing"), "{error}");
    }
    letters.execute("alter table consumer_errors_letters drop column claimed_until").await?;
    let error = letters.reopen().await.expect_err("a column is missing");
    let message = with_causes(error.as_error());
    assert!(message.contains("`consumer_errors_letters`") && message.contains("`claimed_until`"), "{message}");
    Ok(())
}

async fn names_that_are_no_identifiers_are_refused<D: Backend>() -> Result<()> {
    let namespace = D::namespace().await?;
    let name = "errors; drop table events";
    for options in [
        ErrorsTableOptions::new(name),
        options().letters_table(name),
        options().positions_table(name),
        options().attempts_table(name),
        options().id_column(name),
        options().consumer_column(name),
        options().event_id_column(name),
        options().error_column(name),
        options().created_at_column(name),
        options().updated_at_column(name),
        options().status_column(name),
    ] {
        let error = ErrorsTable::open(&namespace.pool, options.clone()).await.expect_err(name);
        assert!(error.is_invalid_name() && error.to_string().contains(name), "{error}");
        assert!(ddl::errors(D::DIALECT, &options).expect_err(name).is_invalid_name());
    }
    Ok(())
}

async fn any_names_will_do<D: Backend>() -> Result<()> {
    let options = ErrorsTableOptions::new("order_failures")
        .id_column("number")
        .consumer_column("of")
        .event_id_column("event")
        .error_column("why")
        .created_at_column("at")
        .updated_at_column("last")
        .status_column("is")
        .events_table(EventsTableOptions::new("failure_events").metadata_column("body"))
        .letters_table("aside")
        .positions_table("places")
        .attempts_table("tries");
    let letters = Letters::<D>::new(options).await?;
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    letters.table.set_attempts("billing", &1.into(), 3).await?;
    redrive(&letters.table).await?;
    let history = letters.table.history(Some("billing"), 10).await?;
    assert_eq!((history.len(), history[0].status), (1, ErrorStatus::Redriven));
    let events = letters.table.events().expect("they are on");
    assert_eq!(collect(events, StreamOptions::new()).await?[1].metadata(), b"billing");
    Ok(())
}

async fn every_change_of_a_status_is_an_event<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let (table, other) = (&letters.table, letters.reopen().await?);
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.put("billing", &event(1, "order-1"), &no()).await?;
    other.put("shipping", &event(1, "order-1"), &no()).await?;
    other.park_behind("billing", &[event(2, "order-1"), event(3, "order-2"), event(4, "order-1")]).await?;
    other.request("billing", &Selection::Event(1.into())).await?;
    let letter = table.claim("billing").await?.expect("it is requested");
    table.settle(&letter, Err(&no())).await?;
    other.discard("billing", &Selection::Event(2.into())).await?;
    redrive(table).await?;
    table.put("billing", &event(1, "order-1"), &no()).await?;
    // In an errors table of its own a process sees what others did; so does one that only follows the events.
    let followed = EventsTable::open(&letters.namespace.pool, "consumer_errors_events").await?;
    let events = collect(&followed, StreamOptions::new()).await?;
    let told = |event: &Event| {
        let consumer = String::from_utf8_lossy(event.metadata()).into_owned();
        (event.foreign_id_as_i64().unwrap_or(0), ErrorStatus::from(event.event_type()), consumer)
    };
    let told: Vec<_> = events.iter().map(told).collect();
    let mut rows = table.history(None, 10).await?;
    rows.sort_by_key(|row| row.id);
    let names: Vec<_> = rows.iter().map(|row| format!("{} {}", row.consumer, row.event_id)).collect();
    assert_eq!(names, ["billing 1", "shipping 1", "billing 2", "billing 4"]);
    let id = |at: usize| rows[at].id;
    let (billing, shipping) = ("billing".to_owned(), "shipping".to_owned());
    let expected = [
        (id(0), ErrorStatus::Recorded, billing.clone()),
        (id(1), ErrorStatus::Recorded, shipping),
        (id(2), ErrorStatus::Recorded, billing.clone()),
        (id(3), ErrorStatus::Recorded, billing.clone()),
        (id(2), ErrorStatus::Discarded, billing.clone()),
        (id(0), ErrorStatus::Redriven, billing.clone()),
        (id(3), ErrorStatus::Redriven, billing.clone()),
        (id(0), ErrorStatus::Recorded, billing),
    ];
    assert_eq!(told, expected);
    Ok(())
}

/// The table is looked at once an hour unless it is woken.
async fn error_events_wake_the_streams_of_the_table<D: Backend>() -> Result<()> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let events = EventsTableOptions::new("consumer_errors_events").poll_interval(Duration::from_secs(3_600));
    let letters = Letters::<D>::new(options().events_table(events).metrics(&metrics)).await?;
    let table = &letters.table;
    let followed = table.events().expect("they are on");
    let mut reader = Reader::open(followed, StreamOptions::new(), metrics.events_table(&followed.name())).await?;
    table.put("billing", &event(1, "order-1"), &no()).await?;
    assert_eq!(ErrorStatus::from(reader.next().await.event_type()), ErrorStatus::Recorded);
    table.park_behind("billing", &[event(2, "order-1")]).await?;
    assert_eq!(ErrorStatus::from(reader.next().await.event_type()), ErrorStatus::Recorded);
    table.discard("billing", &Selection::Event(1.into())).await?;
    assert_eq!(ErrorStatus::from(reader.next().await.event_type()), ErrorStatus::Discarded);
    redrive(table).await?;
    assert_eq!(ErrorStatus::from(reader.next().await.event_type()), ErrorStatus::Redriven);
    Ok(())
}

async fn what_only_records_needs_no_events_table<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options().record_only()).await?;
    assert!(!ddl::errors(D::DIALECT, &letters.options)?.contains("consumer_errors_events"));
    assert!(letters.table.events().is_none());
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    redrive(&letters.table).await?;
    assert_eq!(letters.table.history(None, 10).await?[0].status, ErrorStatus::Redriven);
    Ok(())
}

async fn the_row_and_its_event_are_one<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    letters.execute("drop table consumer_errors_events").await?;
    let error = letters.table.put("billing", &event(1, "order-1"), &no()).await.expect_err("no event can be told");
    assert!(with_causes(&error).contains("consumer_errors_events"), "{}", with_causes(&error));
    assert!(error.to_string().contains("put event 1 of consumer `billing` aside"), "{error}");
    assert!(letters.table.history(None, 10).await?.is_empty());
    assert!(letters.table.list(None, 10).await?.is_empty());
    Ok(())
}

async fn resolved_errors_stay_as_history<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let table = &letters.table;
    for id in 1..=3 {
        table.put("billing", &event(id, &format!("order-{id}")), &no()).await?;
    }
    table.discard("billing", &Selection::Event(2.into())).await?;
    table.request("billing", &Selection::Event(1.into())).await?;
    redrive_one(table).await?;
    let history = table.history(Some("billing"), 10).await?;
    let statuses: Vec<_> = history.iter().map(|row| (row.event_id.as_i64().unwrap_or(0), row.status)).collect();
    let (recorded, redriven, discarded) = (ErrorStatus::Recorded, ErrorStatus::Redriven, ErrorStatus::Discarded);
    assert_eq!(statuses, [(3, recorded), (2, discarded), (1, redriven)]);
    assert!(history.iter().all(|row| row.error == "no such card" && row.updated_at >= row.created_at));
    assert_eq!(letters.numbers("select count(*) from consumer_errors_letters").await?, [1]);
    table.put("billing", &event(1, "order-1"), &HandlerError::new("the card is stolen")).await?;
    let history = table.history(Some("billing"), 10).await?;
    assert_eq!((history.len(), history[2].status), (3, recorded));
    assert_eq!(history[2].error, "the card is stolen");
    Ok(())
}

async fn redrive_one<D: Backend>(table: &ErrorsTable<D>) -> Result<()> {
    let letter = table.claim("billing").await?.expect("it is requested");
    Ok(table.settle(&letter, Ok(())).await?)
}

async fn two_tables_in_one_database_are_apart<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let beside = ErrorsTableOptions::new("order_errors");
    letters.execute(&ddl::errors(D::DIALECT, &beside)?).await?;
    let other = ErrorsTable::open(&letters.namespace.pool, beside).await?;
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    assert!(other.list(None, 10).await?.is_empty());
    assert_eq!(other.park_behind("billing", &[event(2, "order-1")]).await?, [false]);
    Ok(())
}

async fn a_lease_of_nothing_lets_others_take_over_at_once<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options().claim_lease(Duration::ZERO)).await?;
    let (table, other) = (&letters.table, letters.reopen().await?);
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.request("billing", &Selection::All).await?;
    let first = table.claim("billing").await?.expect("it is requested");
    let second = other.claim("billing").await?.expect("the claim has run out");
    table.settle(&first, Ok(())).await?;
    assert_eq!(ids(&table.list(Some("billing"), 10).await?), ["1"]);
    other.settle(&second, Ok(())).await?;
    assert!(table.list(Some("billing"), 10).await?.is_empty());
    Ok(())
}

async fn the_bound_names_the_remedy<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options().max_open(1)).await?;
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    let error = letters.table.put("billing", &event(2, "order-2"), &no()).await.expect_err("the bound is hit");
    assert!(error.is_invalid() && !error.is_expected(), "{error:?}");
    let message = with_causes(&error);
    for word in
        ["event 2", "`billing`", "1 are open", "`consumer_errors`", "reflex errors redrive", "reflex errors discard"]
    {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    assert_eq!(letters.table.history(None, 10).await?.len(), 1);
    Ok(())
}

async fn metrics_count_what_is_put_aside<D: Backend>() -> Result<()> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let letters = Letters::<D>::new(options().metrics(&metrics)).await?;
    let table = &letters.table;
    let seen = |metrics: &Metrics| (metrics.dead_lettered("billing").get(), metrics.dead_letters_open("billing").get());
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.park_behind("billing", &[event(2, "order-1"), event(3, "order-2")]).await?;
    assert_eq!(seen(&metrics), (2, 2));
    let elsewhere = Metrics::register(&Registry::new())?;
    let other = ErrorsTable::open(&letters.namespace.pool, options().metrics(&elsewhere)).await?;
    assert_eq!(seen(&elsewhere), (0, 2));
    redrive(&other).await?;
    assert_eq!(seen(&elsewhere), (0, 0));
    assert_eq!(seen(&metrics), (2, 2));
    assert!(table.claim("billing").await?.is_none());
    assert_eq!(seen(&metrics), (2, 0));
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.discard("billing", &Selection::All).await?;
    assert_eq!(seen(&metrics), (3, 0));
    Ok(())
}

async fn texts_that_are_too_long<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let table = &letters.table;
    let long = "x".repeat(3_000);
    let named = Event::from(EventParts {
        id: long.as_str().into(),
        event_type: 1.into(),
        foreign_id: "order-1",
        timestamp: chrono::Utc::now(),
        metadata: b"",
        trace: b"",
    });
    for (result, what) in [
        (table.put("billing", &event(1, &long), &no()).await, "foreign id `xxx"),
        (table.put("billing", &named, &no()).await, "event id `xxx"),
        (table.put(&long, &event(1, "order-1"), &no()).await, "consumer `xxx"),
    ] {
        let error = result.expect_err("it cannot be stored");
        assert!(error.is_invalid() && error.to_string().contains(what), "{error}");
    }
    assert_eq!(table.park_behind("billing", &[event(1, &long)]).await?, [false]);
    table.put("billing", &event(1, "order-1"), &HandlerError::new("🦀".repeat(50_000))).await?;
    let stored = table.get("billing", &1.into()).await?.expect("it is open").letter.error;
    assert!(
        stored.chars().count() >= 10_000 && stored.chars().all(|c| c == '🦀'),
        "{} characters",
        stored.chars().count()
    );
    Ok(())
}

async fn letters_are_listed_up_to_a_limit<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let table = &letters.table;
    for id in 1..=3 {
        table.put("billing", &event(id, "order-1"), &no()).await?;
        table.put("shipping", &event(id, "order-1"), &no()).await?;
    }
    assert_eq!(ids(&table.list(Some("shipping"), 2).await?), ["1", "2"]);
    assert_eq!(table.list(None, 100).await?.len(), 6);
    assert_eq!(table.list(None, 4).await?.len(), 4);
    assert!(table.list(Some("other"), 100).await?.is_empty());
    assert_eq!(table.history(None, 5).await?.len(), 5);
    assert_eq!(ids(&table.select("billing", &Selection::Oldest(2)).await?), ["1", "2"]);
    Ok(())
}

async fn a_letter_is_shown_with_how_far_it_is<D: Backend>() -> Result<()> {
    let letters = Letters::<D>::new(options()).await?;
    let table = &letters.table;
    table.put("billing", &event(1, "order-1"), &no()).await?;
    let stored = table.get("billing", &1.into()).await?.expect("it is open");
    assert_eq!(stored.letter.event.metadata(), b"paid");
    assert!(!stored.requested && !stored.claimed && stored.last_error.is_none());
    assert!((chrono::Utc::now() - stored.created_at).num_seconds().abs() < 300, "{stored:?}");
    table.request("billing", &Selection::All).await?;
    let letter = table.claim("billing").await?.expect("it is requested");
    let stored = table.get("billing", &1.into()).await?.expect("it is open");
    assert!(stored.requested && stored.claimed);
    table.settle(&letter, Err(&HandlerError::new("still no card"))).await?;
    let stored = table.get("billing", &1.into()).await?.expect("it is open");
    assert!(!stored.requested && !stored.claimed);
    assert_eq!((stored.last_error.as_deref(), stored.letter.redrives), (Some("still no card"), 1));
    assert_eq!(stored.letter.error, "no such card");
    assert!(table.get("billing", &2.into()).await?.is_none());
    Ok(())
}

/// The tables of a Go service, made by hand, and a row that it inserted by the statement of luno/reflex.
#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn tables_of_luno_reflex_open_as_they_are() -> Result<()> {
    let namespace = MySql::namespace().await?;
    let go = "create table consumer_errors (id bigint not null auto_increment, consumer varchar(255) not null,
            event_id varchar(255) not null, error_msg varchar(255) not null, created_at datetime(3) not null,
            updated_at datetime(3) not null, error_status int not null, primary key (id),
            unique index (consumer, event_id));
        create table consumer_errors_events (id bigint not null auto_increment, foreign_id bigint not null,
            timestamp datetime not null, type int not null, metadata blob, primary key (id))";
    MySql::execute(&namespace.pool, go).await?;
    let ours = ddl::errors(reflex_sql::DialectName::MySql, &options())?;
    let ours: String = ours.split_inclusive(";\n").skip(2).collect();
    MySql::execute(&namespace.pool, &ours).await?;
    let insert = "insert into consumer_errors set consumer='billing', event_id='1', error_msg='go', created_at=now(6),
            updated_at=now(6), error_status=1 on duplicate key update id=last_insert_id(id)";
    MySql::execute(&namespace.pool, insert).await?;

    let letters = Letters::within(namespace, options()).await?;
    let table = &letters.table;
    assert!(table.list(None, 10).await?.is_empty());
    table.put("billing", &event(1, "order-1"), &no()).await?;
    table.put("billing", &event(2, "order-2"), &HandlerError::new("x".repeat(1_000))).await?;
    let history = table.history(Some("billing"), 10).await?;
    assert_eq!((history[1].error.as_str(), history[0].error.len()), ("go", 255));
    assert_eq!(table.get("billing", &2.into()).await?.expect("it is open").letter.error.len(), 1_000);
    redrive(table).await?;
    // A Go consumer that records the same event again changes nothing of the row.
    letters.execute(insert).await?;
    let history = table.history(Some("billing"), 10).await?;
    assert_eq!(history.iter().map(|row| row.status).collect::<Vec<_>>(), [ErrorStatus::Redriven; 2]);
    let events = collect(table.events().expect("they are on"), StreamOptions::new()).await?;
    let told: Vec<_> = events.iter().map(|event| (event.foreign_id(), event.event_type().0)).collect();
    let (first, second) = (history[1].id.to_string(), history[0].id.to_string());
    assert_eq!(told, [(&*first, 1), (&*second, 1), (&*first, 2), (&*second, 2)]);
    Ok(())
}

/// A store whose transactions are cut off by the server goes on with the next one.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn a_lost_connection_is_an_error_that_leaves_nothing_half_done() -> Result<()> {
    let letters = Letters::<sqlx::Postgres>::new(options()).await?;
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    let mut holder = letters.namespace.pool.begin().await?;
    sqlx::query("select * from consumer_errors_positions for update").execute(&mut *holder).await?;
    let table = letters.table.clone();
    let put = tokio::spawn(async move { table.put("billing", &event(2, "order-2"), &no()).await });
    wait_for_a_blocked_writer(&letters).await;
    let kill = "select pg_terminate_backend(a.pid)::int::bigint from pg_stat_activity a
        where a.wait_event_type = 'Lock' and pg_backend_pid() = any(pg_blocking_pids(a.pid))";
    sqlx::query(kill).execute(&mut *holder).await?;
    let error = put.await?.expect_err("its connection is gone");
    assert!(!error.is_expected() && !error.is_invalid(), "{error:?}");
    holder.rollback().await?;
    assert_eq!(ids(&letters.table.list(None, 10).await?), ["1"]);
    letters.table.put("billing", &event(2, "order-2"), &no()).await?;
    assert!(cause(&error).as_database().is_some());
    Ok(())
}

/// The letter goes away after it was seen, while the park waits for whoever redrives it.
#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn nothing_is_parked_behind_a_letter_that_goes_away_at_that_moment() -> Result<()> {
    let letters = Letters::<sqlx::Postgres>::new(options()).await?;
    letters.table.put("billing", &event(1, "order-1"), &no()).await?;
    let mut redriver = letters.namespace.pool.begin().await?;
    sqlx::query("select * from consumer_errors_positions for update").execute(&mut *redriver).await?;
    let table = letters.table.clone();
    let park = tokio::spawn(async move { table.park_behind("billing", &[event(2, "order-1")]).await });
    wait_for_a_blocked_writer(&letters).await;
    sqlx::query("delete from consumer_errors_letters").execute(&mut *redriver).await?;
    redriver.commit().await?;
    assert_eq!(park.await??, [false]);
    assert!(letters.table.list(None, 10).await?.is_empty());
    Ok(())
}

/// Until a writer of this namespace waits for the lock of a consumer.
async fn wait_for_a_blocked_writer(letters: &Letters<sqlx::Postgres>) {
    let blocked = "select count(*) from pg_stat_activity a
        where a.query like 'insert into \"consumer_errors_positions\"%' and exists (
            select from pg_locks l join pg_class c on c.oid = l.relation
            where l.pid = any(pg_blocking_pids(a.pid)) and c.relnamespace = current_schema()::regnamespace)";
    reflex_testing::eventually("a writer to wait", Duration::from_secs(60), || async {
        letters.numbers(blocked).await.is_ok_and(|blocked| blocked[0] > 0)
    })
    .await;
}
