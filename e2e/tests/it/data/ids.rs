//! Ids that jump, ids near the end of what there is, and events that were deleted before anybody read them.

use reflex_core::StreamOptions;
use reflex_e2e::Backend;
use sqlx::{Pool, Postgres};
use test_servers::StopMode;
use tokio::task::spawn_blocking;

use super::{add, dialect, ids, on, open, read, read_all};
use crate::support::run;

on!(each:
    jumps_are_passed_over,
    the_last_ids_that_there_are,
    what_was_deleted_before_it_was_read_is_no_obstacle,
    everything_was_deleted_before_it_was_read,
);

/// Lets the next event have this id.
async fn jump<D: Backend>(pool: &Pool<D>, id: i64) {
    let sql = match dialect::<D>() {
        "PostgreSQL" => format!("select setval(pg_get_serial_sequence('events', 'id'), {id}, false)"),
        "MySQL" => format!("alter table events auto_increment = {id}"),
        _ => format!("update sqlite_sequence set seq = {} where name = 'events'", id - 1),
    };
    run(pool, &sql).await;
}

async fn jumps_are_passed_over<D: Backend>(pool: &Pool<D>) {
    let table = open(pool).await;
    add(pool, 2).await;
    let mut expected = vec![1, 2];
    for id in [35, 1_000_000, 1 << 31, (1 << 53) + 1] {
        jump(pool, id).await;
        add(pool, 2).await;
        expected.extend([id, id + 1]);
        // One reader has seen what was before the jump, the other meets all jumps at once.
        let (after, end) = read(&table, id - 1).await;
        assert!(end.is_head_reached() && ids(&after) == [id, id + 1], "{end}: {after:?}");
        assert_eq!(ids(&read_all(pool).await), expected);
    }
}

async fn the_last_ids_that_there_are<D: Backend>(pool: &Pool<D>) {
    add(pool, 1).await;
    jump(pool, i64::MAX - 2).await;
    add(pool, 2).await;
    assert_eq!(ids(&read_all(pool).await), [1, i64::MAX - 2, i64::MAX - 1]);
    let (rest, end) = read(&open(pool).await, i64::MAX - 2).await;
    assert!(end.is_head_reached() && ids(&rest) == [i64::MAX - 1], "{end}: {rest:?}");
    let (rest, end) = read(&open(pool).await, i64::MAX - 1).await;
    assert!(end.is_head_reached() && rest.is_empty(), "{end}: {rest:?}");
}

/// The database does not know what it held: what is left arrives.
async fn what_was_deleted_before_it_was_read_is_no_obstacle<D: Backend>(pool: &Pool<D>) {
    add(pool, 10).await;
    let table = open(pool).await;
    run(pool, "delete from events where id between 4 and 8").await;
    let (rest, end) = read(&table, 3).await;
    assert!(end.is_head_reached() && ids(&rest) == [9, 10], "{end}: {rest:?}");
    run(pool, "delete from events where id < 10").await;
    let (rest, end) = read(&table, 3).await;
    assert!(end.is_head_reached() && ids(&rest) == [10], "{end}: {rest:?}");
}

/// The ids go on where they were, so the cursor is no worse for it.
async fn everything_was_deleted_before_it_was_read<D: Backend>(pool: &Pool<D>) {
    add(pool, 10).await;
    let table = open(pool).await;
    run(pool, "delete from events").await;
    let (rest, end) = read(&table, 3).await;
    assert!(end.is_head_reached() && rest.is_empty(), "{end}: {rest:?}");
    add(pool, 1).await;
    let (rest, end) = read(&table, 3).await;
    assert!(end.is_head_reached() && ids(&rest) == [11], "{end}: {rest:?}");
}

/// After a crash the sequence of Postgres goes on up to 32 values later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn the_sequence_of_postgres_jumps_after_a_crash() {
    let server = std::sync::Arc::new(spawn_blocking(test_servers::Postgres::start).await.unwrap().unwrap());
    let pool = Postgres::pool(&server.url()).unwrap();
    reflex_migrations::up(&pool).await.unwrap();
    add(&pool, 3).await;
    let table = open(&pool).await;
    table.open_stream(StreamOptions::new()).await.unwrap();
    run(&pool, "checkpoint").await;
    add(&pool, 1).await;
    let crashed = server.clone();
    spawn_blocking(move || crashed.stop(StopMode::Immediate).and_then(|()| crashed.restart())).await.unwrap().unwrap();
    let pool = Postgres::pool(&server.url()).unwrap();
    add(&pool, 2).await;
    let (events, end) = read(&open(&pool).await, 0).await;
    assert!(end.is_head_reached(), "{end}");
    let ids = ids(&events);
    assert!(ids.len() == 6 && ids[..4] == [1, 2, 3, 4] && ids[4] > 5, "the sequence did not jump: {ids:?}");
    pool.close().await;
}
