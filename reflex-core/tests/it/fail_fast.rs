//! An error ends the run and leaves the cursor in front of the event.

use std::error::Error as _;

use reflex_core::{Error, MemoryCursors, Operation, Spec, run};
use reflex_testing::{Call, History, ScriptedConsumer, Step};

use crate::support::{filled, stored};

#[tokio::test]
async fn a_handler_error_names_consumer_and_event_and_the_cursor_stays() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing").at(2, Step::fail("the card was declined"));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer).to_head();

    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(error.consumer(), Some("billing"));
    assert_eq!(error.event_id(), Some(&3.into()));
    assert_eq!(error.foreign_id(), Some("order-3"));
    assert_eq!(error.source().unwrap().to_string(), "the card was declined");
    let text = error.to_string();
    assert!(text.contains("billing") && text.contains('3') && text.contains("order-3"), "{text}");
    assert!(!text.contains("declined"), "the cause is printed twice: {text}");
    assert!(!error.is_expected() && !error.is_filter());
    assert_eq!(stored(&cursors, "billing"), Some(2));
    assert_eq!(calls.all().last(), Some(&Call::Stop));
    assert_eq!(calls.count(&Call::Drain), 0, "work in hand is not finished after a failure");
}

#[tokio::test]
async fn the_next_run_goes_on_at_the_event_that_failed() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing").at(2, Step::fail("no")).at(3, Step::fail("still no"));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer).to_head();

    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&3.into()));
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&3.into()));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3, 3, 3, 4, 5]);
    assert_eq!(calls.count(&Call::Reset), 3);
    assert_eq!(calls.count(&Call::Stop), 3);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_set_repeats_the_event() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(4), cursors.clone(), consumer).to_head();
    cursors.fail_next(Operation::Set, Error::store("set cursor", "the connection was reset"));

    let error = run(&mut spec).await.unwrap_err();
    assert_eq!(error.consumer(), Some("billing"));
    assert_eq!(error.event_id(), Some(&1.into()));
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());

    let mut history = History::new();
    let consumed = calls.consumed_ids();
    history.extend(consumed[..1].iter().copied());
    history.resume();
    history.extend(consumed[1..].iter().copied());
    assert_eq!(history.check(&[1, 2, 3, 4]).unwrap().repeats, 1);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_read_ends_the_run_before_anything_is_consumed() {
    let cursors = MemoryCursors::new();
    cursors.fail_next(Operation::Get, Error::store("get cursor", "the connection was reset"));
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let error = run(&mut Spec::new(filled(1), cursors, consumer).to_head()).await.unwrap_err();
    assert!(error.to_string().contains("get cursor"), "{error}");
    assert!(calls.consumed().is_empty());
}

#[tokio::test]
async fn a_stream_error_ends_the_run_and_the_next_one_goes_on() {
    let (events, cursors) = (filled(3), MemoryCursors::new());
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(events.clone(), cursors.clone(), consumer).to_head();

    events.fail_next_open(Error::stream("open events", "no route to host"));
    assert!(run(&mut spec).await.unwrap_err().to_string().contains("open events"));
    events.fail_next_read(Error::stream("read events", "connection reset"));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.to_string().contains("read events"), "{error}");
    assert_eq!(error.consumer(), Some("billing"));
    assert_eq!(error.event_id(), None);
    assert_eq!(calls.count(&Call::Drain), 0, "work in hand is not finished after a failure");
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3]);
}

#[tokio::test]
async fn a_stream_that_just_ends_is_an_error() {
    let source = |_options| async { Ok(futures_util::stream::iter([Ok(crate::support::event(1))])) };
    let cursors = MemoryCursors::new();
    let error = run(&mut Spec::new(source, cursors.clone(), ScriptedConsumer::new("billing"))).await.unwrap_err();
    assert!(error.is_ended() && !error.is_expected(), "{error}");
    assert_eq!(stored(&cursors, "billing"), Some(1));
}

#[tokio::test]
async fn a_reset_that_fails_ends_the_run() {
    let consumer = ScriptedConsumer::new("billing").on_reset(Step::fail("no room"));
    let calls = consumer.calls();
    let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), consumer).to_head()).await.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "no room");
    assert_eq!(calls.all(), [Call::Reset, Call::Stop]);
}

#[tokio::test]
async fn a_stop_that_fails_is_the_error_of_a_run_that_ended_as_intended() {
    let consumer = ScriptedConsumer::new("billing").on_stop(Step::fail("cannot close"));
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).to_head();
    assert_eq!(run(&mut spec).await.unwrap_err().source().unwrap().to_string(), "cannot close");

    let consumer = ScriptedConsumer::new("billing").at(0, Step::fail("no")).on_stop(Step::fail("cannot close"));
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).to_head();
    assert_eq!(run(&mut spec).await.unwrap_err().source().unwrap().to_string(), "no");
}

/// A handler that reads another stream to its head and passes that error on has failed.
#[tokio::test]
async fn a_head_reached_error_of_a_handler_is_no_success() {
    let cursors = MemoryCursors::new();
    let consumer = reflex_core::consumer_fn("billing", |_event| async { Err(Error::head_reached().into()) });
    let error = run(&mut Spec::new(filled(1), cursors.clone(), consumer).to_head()).await.unwrap_err();
    assert!(!error.is_head_reached(), "{error}");
    assert_eq!(error.event_id(), Some(&1.into()));
    assert_eq!(stored(&cursors, "billing"), None);
}
