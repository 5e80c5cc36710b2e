//! Cursors that somebody deletes or moves by hand while their consumer runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use reflex_core::{
    BufferedCursors, Consumer, CursorStore, Error, Event, Progress, Spec, consumer_fn, run as run_spec, run_until,
};
use reflex_e2e::Backend;
use reflex_sql::{CursorsTable, CursorsTableOptions, EventsTable, TransactionalCursors, Tx};
use reflex_testing::eventually;
use sqlx::Pool;
use tokio::sync::Notify;

use super::{add, message, on, open, read_all};
use crate::support::{PATIENCE, metrics, run};

on!(each:
    an_emptied_table_is_filled_again,
    an_emptied_table_is_filled_again_by_a_buffer,
    a_cursor_moved_back_goes_on_where_the_consumer_is,
    a_cursor_moved_ahead_ends_the_run,
    a_cursor_moved_ahead_ends_a_buffered_run,
    an_emptied_table_fences_a_transactional_consumer,
);

const NAME: &str = "billing";

type Seen = Arc<Mutex<Vec<i64>>>;

async fn cursors<D: Backend>(pool: &Pool<D>) -> CursorsTable<D> {
    CursorsTable::open(pool, CursorsTableOptions::new("cursors").metrics(&metrics())).await.unwrap()
}

fn watcher(seen: &Seen) -> impl Consumer + use<> {
    let seen = seen.clone();
    consumer_fn(NAME, move |event: Event| {
        seen.lock().unwrap().push(event.id_as_i64().unwrap());
        async { Ok(()) }
    })
}

/// Runs a consumer over three events, then `meddles` with its cursor, and adds three more. The run ends by itself, or once the
/// consumer has seen everything.
async fn meddle<D: Backend>(
    pool: &Pool<D>,
    cursors: impl CursorStore,
    consumer: impl Consumer,
    seen: &Seen,
    meddles: &str,
) -> Error {
    add(pool, 3).await;
    let options = super::options().poll_interval(Duration::from_millis(10));
    let table = EventsTable::open(pool, options).await.unwrap();
    let mut spec = Spec::new(table, cursors, consumer).metrics(&metrics());
    let all = Notify::new();
    let count = |count| move || async move { seen.lock().unwrap().len() >= count };
    let meddling = async {
        eventually("three events", PATIENCE, count(3)).await;
        run(pool, meddles).await;
        add(pool, 3).await;
        eventually("six events", PATIENCE, count(6)).await;
        all.notify_one();
        std::future::pending::<()>().await
    };
    tokio::select! {
        ended = run_until(&mut spec, all.notified()) => ended.unwrap_err(),
        () = meddling => unreachable!("it waits for the run"),
    }
}

async fn stored<D: Backend>(pool: &Pool<D>) -> Option<i64> {
    cursors(pool).await.get(NAME).await.unwrap().and_then(|cursor| cursor.as_i64())
}

async fn an_emptied_table_is_filled_again<D: Backend>(pool: &Pool<D>) {
    let seen = Seen::default();
    let end = meddle(pool, cursors(pool).await, watcher(&seen), &seen, "delete from cursors").await;
    assert!(end.is_stopped(), "{}", message(&end));
    assert_eq!(stored(pool).await, Some(6));
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}

async fn an_emptied_table_is_filled_again_by_a_buffer<D: Backend>(pool: &Pool<D>) {
    let seen = Seen::default();
    let cursors = BufferedCursors::new(cursors(pool).await).max_sets(2);
    let end = meddle(pool, cursors, watcher(&seen), &seen, "delete from cursors").await;
    assert!(end.is_stopped(), "{}", message(&end));
    assert_eq!(stored(pool).await, Some(6));
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}

async fn a_cursor_moved_back_goes_on_where_the_consumer_is<D: Backend>(pool: &Pool<D>) {
    let seen = Seen::default();
    let back = "update cursors set last_event_id = 1";
    let end = meddle(pool, cursors(pool).await, watcher(&seen), &seen, back).await;
    assert!(end.is_stopped(), "{}", message(&end));
    assert_eq!(stored(pool).await, Some(6));
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4, 5, 6]);
}

async fn a_cursor_moved_ahead_ends_the_run<D: Backend>(pool: &Pool<D>) {
    let seen = Seen::default();
    moved_ahead(pool, cursors(pool).await, &seen).await;
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4]);
}

async fn a_cursor_moved_ahead_ends_a_buffered_run<D: Backend>(pool: &Pool<D>) {
    let seen = Seen::default();
    moved_ahead(pool, BufferedCursors::new(cursors(pool).await).max_sets(1), &seen).await;
}

async fn moved_ahead<D: Backend>(pool: &Pool<D>, cursors: impl CursorStore, seen: &Seen) {
    // The cursor of the third event is stored after it was seen: a statement that came in between would be overtaken by it.
    let ahead = "insert into cursors (id, last_event_id) values ('other', 0)";
    let consumer = {
        let (pool, seen) = (pool.clone(), seen.clone());
        consumer_fn(NAME, move |event: Event| {
            let (pool, seen) = (pool.clone(), seen.clone());
            async move {
                let id = event.id_as_i64()?;
                seen.lock().unwrap().push(id);
                if id == 4 {
                    run(&pool, "update cursors set last_event_id = 100 where id = 'billing'").await;
                }
                Ok(())
            }
        })
    };
    let end = meddle(pool, cursors, consumer, seen, ahead).await;
    let text = message(&end);
    assert!(end.is_cursor_backwards() && !end.is_expected(), "{text}");
    for word in [NAME, "100", "event 4"] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert_eq!(stored(pool).await, Some(100), "what was set by hand stays");
}

async fn an_emptied_table_fences_a_transactional_consumer<D: Backend>(pool: &Pool<D>) {
    run(pool, "create table effects (event_id bigint)").await;
    add(pool, 3).await;
    let events = read_all(pool).await;
    let cursors = TransactionalCursors::new(cursors(pool).await);
    let consumer = || {
        cursors.consumer(NAME, |mut tx: Tx<D>, event: Event| async move {
            let sql = format!("insert into effects values ({})", event.id());
            Ok(D::run_sql(&mut tx, sql).await?)
        })
    };
    assert_eq!(cursors.get(NAME).await.unwrap(), None);
    let mut running = consumer();
    for event in &events[..2] {
        assert_eq!(running.consume(event.clone()).await.unwrap(), Progress::Done);
    }
    run(pool, "delete from cursors").await;
    let error = running.consume(events[2].clone()).await.expect_err("the cursor is not where it was left");
    assert!(error.is_fenced(), "{error:?}");
    let effects = D::number(pool, "select count(*) from effects").await.unwrap();
    assert_eq!((effects, stored(pool).await), (2, None), "nothing was changed");
    drop(running);

    // Whoever emptied the table asked for everything once more.
    let mut spec = Spec::new(open(pool).await, cursors.clone(), consumer()).metrics(&metrics()).to_head();
    let Err(end) = run_spec(&mut spec).await;
    assert!(end.is_head_reached(), "{}", message(&end));
    let effects = D::number(pool, "select count(*) from effects").await.unwrap();
    assert_eq!((effects, stored(pool).await), (5, Some(3)));
}
