//! Several events at once, in no order.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reflex_core::{
    Cursor, Error, Event, EventParts, HandlerError, MemoryCursors, Operation, Result, Spec, StreamOptions, consumer_fn,
    run, run_until,
};
use rpatterns::{batch, concurrent};
use tokio::{
    sync::{Barrier, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    checked::{CheckedCursors, seed},
    support::{Notes, chain, filled, stored},
};

const LONG: Duration = Duration::from_secs(3_600);

/// Each of the barrier's handlers waits for all the others.
#[tokio::test(start_paused = true)]
async fn so_many_are_handled_at_once() {
    let barrier = Arc::new(Barrier::new(8));
    let cursors = MemoryCursors::new();
    let consumer = consumer_fn("thank", move |_event: Event| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(80), cursors.clone(), concurrent(8, consumer));
    let shutdown = async {
        sleep(LONG).await;
        assert_eq!(stored(&cursors, "thank"), Some(80));
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn and_never_more() {
    let running = Arc::new(Semaphore::new(3));
    let consumer = consumer_fn("thank", move |_event: Event| {
        let running = running.clone();
        async move {
            let _one = running.try_acquire()?;
            sleep(Duration::from_millis(1)).await;
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(80), MemoryCursors::new(), concurrent(3, consumer)).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
}

#[tokio::test(start_paused = true)]
async fn a_slow_event_holds_the_cursor_and_nothing_else() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let noted = notes.clone();
    let consumer = consumer_fn("thank", move |event: Event| {
        let noted = noted.clone();
        async move {
            if event.id_as_i64()? == 5 {
                sleep(LONG).await;
            }
            noted.add(event.id_as_i64()?);
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(100), cursors.clone(), concurrent(2, consumer));
    let shutdown = async {
        sleep(LONG / 2).await;
        assert_eq!((stored(&cursors, "thank"), notes.len()), (Some(4), 99));
        sleep(LONG).await;
        assert_eq!((stored(&cursors, "thank"), notes.len()), (Some(100), 100));
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn the_cursor_moves_only_over_the_contiguous_prefix_whatever_is_done_first() {
    let seed = seed("concurrent");
    for round in 0..20 {
        let notes = Notes::new();
        let (cursors, noted) = (CheckedCursors::new(&notes), notes.clone());
        let consumer = consumer_fn("thank", move |event: Event| {
            let noted = noted.clone();
            let mut rng = StdRng::seed_from_u64(seed ^ (round << 32) ^ event.id().as_i64().unwrap() as u64);
            async move {
                sleep(Duration::from_millis(rng.random_range(0..20))).await;
                noted.add(event);
                Ok(())
            }
        });
        let mut spec = Spec::new(filled(100), cursors.clone(), concurrent(7, consumer).window(30)).to_head();
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(cursors.last(), Some(100));
        assert!(cursors.writes() > 5, "the cursor follows: {} writes", cursors.writes());
    }
}

/// Ids like those of Redis Streams, which are no numbers and do not sort as text.
#[tokio::test(start_paused = true)]
async fn with_cursors_of_any_kind() {
    let source = |_options: StreamOptions| async {
        let ids = (1..=30).map(|number| format!("{}-{}", 1_000 + number / 10, number % 10));
        let events = ids.map(|id| {
            Ok(Event::from(EventParts {
                id: Cursor::from(id),
                event_type: 1.into(),
                foreign_id: "order-12",
                timestamp: Default::default(),
                metadata: b"",
                trace: b"",
            }))
        });
        Result::Ok(futures_util::stream::iter(events.chain([Err(Error::head_reached())])))
    };
    let cursors = MemoryCursors::new();
    let consumer = batch(4, LONG, consumer_fn("thank", |_batch: Vec<Event>| async { Ok(()) }));
    let mut spec = Spec::new(source, cursors.clone(), concurrent(3, consumer));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(cursors.all()["thank"], "1003-0".into());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_written_ends_the_run() {
    let cursors = MemoryCursors::new();
    cursors.fail_next(Operation::Set, Error::store("set cursor", "disk full"));
    let consumer = consumer_fn("thank", |_event: Event| async { Ok(()) });
    let mut spec = Spec::new(filled(5), cursors.clone(), concurrent(2, consumer));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert!(chain(&error).ends_with("set cursor: disk full"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_run_and_the_next_goes_on() {
    let (cursors, failures) = (MemoryCursors::new(), Arc::new(Semaphore::new(1)));
    let consumer = consumer_fn("thank", move |event: Event| {
        let failures = failures.clone();
        async move {
            if event.id_as_i64()? == 7 && failures.try_acquire().map(|failure| failure.forget()).is_ok() {
                sleep(Duration::from_millis(10)).await;
                return Err(HandlerError::new("no such address"));
            }
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(30), cursors.clone(), concurrent(3, consumer));
    let error = timeout(LONG, run(&mut spec)).await.expect("the run ends").unwrap_err();
    assert_eq!(error.event_id(), Some(&7.into()));
    assert_eq!(stored(&cursors, "thank"), Some(6));
    assert!(run_until(&mut spec, sleep(LONG)).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "thank"), Some(30));
}

#[tokio::test]
async fn none_at_once_does_not_run() {
    let consumer = concurrent(0, consumer_fn("thank", |_event: Event| async { Ok(()) }));
    let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), consumer)).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
}
