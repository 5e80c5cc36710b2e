use std::{future::ready, time::Duration};

use reflex_core::{CursorStore, Error, MemoryCursors, MemoryEvents, NewEvent, StreamOptions};
use reflex_testing::{await_cursor, collect};

use crate::check_found;

const SOON: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_not_reached_is_an_error_that_says_how_far_it_got() {
    let cursors = MemoryCursors::new();
    let error = await_cursor(&cursors, "billing", 5, SOON).await.unwrap_err().to_string();
    assert!(error.contains("billing") && error.contains('5') && error.contains("no cursor"), "{error}");
    cursors.set("billing", &4.into()).await.unwrap();
    let error = await_cursor(&cursors, "billing", 5, SOON).await.unwrap_err().to_string();
    assert!(error.contains('4'), "{error}");
    assert_eq!(await_cursor(&cursors, "billing", 4, SOON).await.unwrap(), 4.into());
    cursors.set("billing", &"1-1".into()).await.unwrap();
    assert!(await_cursor(&cursors, "billing", "1-0", SOON).await.is_err());
    assert!(await_cursor(&cursors, "billing", "1-1", SOON).await.is_ok());
}

#[tokio::test]
async fn collect_passes_errors_on() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-12", 1));
    events.fail_next_read(Error::stream("read events", "connection reset"));
    assert!(collect(&events, StreamOptions::new()).await.is_err());
    assert_eq!(collect(&events, StreamOptions::new()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_suite_names_a_namespace_that_cannot_be_made() {
    let factory = |case: &'static str| {
        let cursors = MemoryCursors::new();
        ready(match case {
            "flush" => Err(reflex_core::HandlerError::from(Error::store("create a table", "disk full"))),
            _ => Ok(move || ready(Ok(cursors.clone()))),
        })
    };
    let suite = reflex_testing::conformance::cursor_store(factory, Default::default());
    check_found(suite, "flush").await;
}
