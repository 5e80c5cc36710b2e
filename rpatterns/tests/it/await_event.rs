//! Waiting for an event, or for a question to be answered with yes.

use std::time::Duration;

use reflex_core::{Error, HandlerError, MemoryEvents, NewEvent};
use rpatterns::{await_event, await_event_or};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Notes, filled};

const SECOND: Duration = Duration::from_secs(1);

const SHIPPED: i32 = 2;
const RETURNED: i32 = 3;
const NO_TYPE: [i32; 0] = [];

async fn append_later(events: &MemoryEvents, all: &[(&str, i32)]) {
    for (foreign_id, event_type) in all {
        sleep(SECOND).await;
        events.append(NewEvent::new(*foreign_id, *event_type));
    }
}

#[tokio::test(start_paused = true)]
async fn returns_the_first_later_event_of_the_foreign_id_and_one_of_the_types() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-1", SHIPPED));
    let later = [("order-1", 1), ("order-2", SHIPPED), ("order-1", RETURNED), ("order-1", SHIPPED)];
    let (event, ()) = tokio::join!(await_event(&events, [SHIPPED, RETURNED], "order-1"), append_later(&events, &later));
    assert_eq!(event.unwrap().id(), &4.into());
}

#[tokio::test(start_paused = true)]
async fn without_types_any_event_of_the_foreign_id_counts() {
    let events = filled(1);
    let later = [("order-2", 1), ("order-1", 9)];
    let (event, ()) = tokio::join!(await_event(&events, NO_TYPE, "order-1"), append_later(&events, &later));
    assert_eq!(event.unwrap().id(), &3.into());
}

#[tokio::test(start_paused = true)]
async fn waits_until_it_is_dropped() {
    assert!(timeout(3_600 * SECOND, await_event(&filled(9), NO_TYPE, "order-1")).await.is_err());
}

#[tokio::test]
async fn an_error_of_the_stream_is_the_result() {
    let events = MemoryEvents::new();
    events.fail_next_open(Error::stream("open", "connection refused"));
    assert_eq!(await_event(&events, [SHIPPED], "order-1").await.unwrap_err().to_string(), "open");
    events.fail_next_read(Error::stream("read", "connection reset"));
    assert_eq!(await_event(&events, [SHIPPED], "order-1").await.unwrap_err().to_string(), "read");
    events.stop();
    assert!(await_event(&events, [SHIPPED], "order-1").await.unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_answered_with_yes_ends_the_wait() {
    let (events, asked) = (MemoryEvents::new(), Notes::new());
    let poll = || {
        asked.add(());
        let yes = asked.len() == 4;
        async move { Ok(yes) }
    };
    let start = Instant::now();
    assert!(await_event_or(&events, [SHIPPED], "order-1", poll).await.unwrap().is_none());
    assert_eq!(start.elapsed().as_secs(), 3, "it is asked at once and then every second");
}

#[tokio::test(start_paused = true)]
async fn an_event_ends_the_wait_while_the_question_hangs() {
    let events = MemoryEvents::new();
    let wait = await_event_or(&events, [SHIPPED], "order-1", std::future::pending::<Result<bool, HandlerError>>);
    let (event, ()) = tokio::join!(wait, append_later(&events, &[("order-1", SHIPPED)]));
    assert_eq!(event.unwrap().unwrap().id(), &1.into());
}

/// The event is committed by the question itself: after it was answered, and before anything else.
#[tokio::test(start_paused = true)]
async fn nothing_is_missed_between_the_question_and_the_wait() {
    let events = MemoryEvents::new();
    let poll = || {
        events.append(NewEvent::new("order-1", SHIPPED));
        async { Ok(false) }
    };
    let event = await_event_or(&events, [SHIPPED], "order-1", poll).await.unwrap();
    assert_eq!(event.unwrap().id(), &1.into());
}

#[tokio::test]
async fn an_error_of_the_question_is_the_result() {
    let poll = || async { Err(HandlerError::new("no such table")) };
    let error = await_event_or(&MemoryEvents::new(), [SHIPPED], "order-1", poll).await.unwrap_err();
    assert_eq!(crate::support::chain(&error), "the handler failed: no such table");
}
