//! Types, filters and recovery of consumers made from closures.

use std::{
    error::Error as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use reflex_core::{Error, Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};

use crate::support::{Scrape, filled, stored};

type Seen = Arc<Mutex<Vec<i64>>>;

/// A handler that notes the ids.
fn note(seen: &Seen) -> impl FnMut(Event) -> std::future::Ready<Result<(), HandlerError>> + Send + 'static {
    let seen = seen.clone();
    move |event| {
        seen.lock().unwrap().push(event.id_as_i64().unwrap());
        std::future::ready(Ok(()))
    }
}

fn of_types(types: &[i32]) -> MemoryEvents {
    let events = MemoryEvents::new();
    for event_type in types {
        events.append(NewEvent::new("order-12", *event_type));
    }
    events
}

#[tokio::test]
async fn other_types_are_skipped_and_the_cursor_moves_past_them() {
    let (seen, cursors, scrape) = (Seen::default(), MemoryCursors::new(), Scrape::new());
    let consumer = consumer_fn("audit", note(&seen)).include_types([1, 3]);
    let mut spec = Spec::new(of_types(&[2, 1, 2, 3, 2]), cursors.clone(), consumer).metrics(&scrape.metrics).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(*seen.lock().unwrap(), [2, 4]);
    assert_eq!(stored(&cursors, "audit"), Some(5));
    assert_eq!(scrape.consumer("reflex_consumer_skipped_events_count", "audit"), Some(3.0));
}

#[tokio::test]
async fn filtered_events_are_skipped() {
    let (seen, cursors, scrape) = (Seen::default(), MemoryCursors::new(), Scrape::new());
    let consumer = consumer_fn("audit", note(&seen)).include_types([1]).filter(|event| Ok(event.id_as_i64()? % 2 == 0));
    let mut spec =
        Spec::new(of_types(&[1, 1, 1, 2, 1, 1]), cursors.clone(), consumer).metrics(&scrape.metrics).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(*seen.lock().unwrap(), [2, 6]);
    assert_eq!(stored(&cursors, "audit"), Some(6));
    assert_eq!(scrape.consumer("reflex_consumer_skipped_events_count", "audit"), Some(4.0));
}

#[tokio::test]
async fn a_filter_that_fails_is_told_from_a_handler_that_fails() {
    let cursors = MemoryCursors::new();
    let recoveries = Arc::new(AtomicUsize::new(0));
    let counted = recoveries.clone();
    let consumer = consumer_fn("audit", |_event| async { Ok(()) })
        .filter(|event| match event.id_as_i64()? {
            2 => Err(HandlerError::new("unreadable")),
            _ => Ok(true),
        })
        .recover(move |_failure| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        });
    let error = run(&mut Spec::new(filled(3), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert!(error.is_filter());
    assert_eq!(error.source().unwrap().to_string(), "unreadable");
    assert_eq!(error.event_id(), Some(&2.into()));
    assert_eq!(error.consumer(), Some("audit"));
    assert_eq!(stored(&cursors, "audit"), Some(1));
    assert_eq!(recoveries.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn recovery_may_swallow_an_error() {
    let (cursors, failures) = (MemoryCursors::new(), Arc::new(Mutex::new(Vec::new())));
    let noted = failures.clone();
    let consumer = consumer_fn("audit", |event: Event| async move {
        if event.id_as_i64()? == 2 { Err(HandlerError::new("no")) } else { Ok(()) }
    })
    .recover(move |failure| {
        noted.lock().unwrap().push((failure.consumer, failure.event.id().clone(), failure.error.to_string()));
        std::future::ready(Ok(()))
    });
    let error = run(&mut Spec::new(filled(3), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert!(error.is_head_reached());
    assert_eq!(stored(&cursors, "audit"), Some(3));
    assert_eq!(*failures.lock().unwrap(), [("audit".into(), 2.into(), "no".to_owned())]);
}

#[tokio::test]
async fn recovery_may_replace_an_error() {
    let cursors = MemoryCursors::new();
    let consumer = consumer_fn("audit", |_event| async { Err(HandlerError::new("no")) })
        .recover(|failure| async move { Err(HandlerError::new(format!("not recovered: {}", failure.error))) });
    let error = run(&mut Spec::new(filled(3), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "not recovered: no");
    assert_eq!(error.event_id(), Some(&1.into()));
    assert_eq!(stored(&cursors, "audit"), None);
}

#[tokio::test]
async fn expected_errors_are_not_recovered() {
    let cursors = MemoryCursors::new();
    for error in [Error::stopped, Error::cancelled, Error::deadline_exceeded] {
        let consumer = consumer_fn("audit", move |_event| async move { Err(Error::stream("call", error()).into()) })
            .recover(|_failure| async { Ok(()) });
        let ended = run(&mut Spec::new(filled(1), cursors.clone(), consumer).to_head()).await.unwrap_err();
        assert!(ended.is_expected(), "{ended}");
        assert_eq!(stored(&cursors, "audit"), None);
    }
}
