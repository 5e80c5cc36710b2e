//! Redrives by a program of their own.

use std::time::Duration;

use reflex_core::{
    BoxConsumer, Consumer, DeadLetterStore, Error, Event, HandlerError, MemoryDeadLetters, MemoryEvents, NewEvent,
    Progress, Selection, consumer_fn,
};
use reflex_testing::{Call, ScriptedConsumer, Step};
use rpatterns::{dead_letter, rate_limit, redrive, retry};

/// Letters of events 1 to `count`, requested.
async fn requested(count: usize) -> MemoryDeadLetters {
    let (events, letters) = (MemoryEvents::new(), MemoryDeadLetters::new());
    for order in 1..=count {
        let event = events.append(NewEvent::new(order as i64, 1));
        letters.put("charge", &event, &HandlerError::new("no such card")).await.unwrap();
    }
    letters.request("charge", &Selection::All).unwrap();
    letters
}

#[tokio::test]
async fn hands_over_what_is_requested_in_order_until_nothing_is_left() {
    let letters = requested(3).await;
    let inner = ScriptedConsumer::new("charge").at(1, Step::fail("still no such card"));
    let calls = inner.calls();
    let mut consumer = dead_letter(letters.clone(), inner);
    let redriven = redrive(&mut consumer).await.unwrap();
    assert_eq!((redriven.handled, redriven.failed), (2, 1));
    let consumed = [1, 2, 3].map(|id| Call::Consume(id.into()));
    let [first, second, third] = consumed;
    assert_eq!(calls.all(), [Call::Reset, first, second, third, Call::Stop]);
    let open = letters.open("charge");
    assert_eq!((open.len(), open[0].redrives, &*open[0].error), (1, 1, "no such card"));

    let redriven = redrive(&mut consumer).await.unwrap();
    assert_eq!((redriven.handled, redriven.failed), (0, 0), "its request is withdrawn");
}

#[tokio::test]
async fn nothing_is_redriven_that_was_not_requested() {
    let letters = requested(0).await;
    let event = MemoryEvents::new().append(NewEvent::new("order-1", 1));
    letters.put("charge", &event, &HandlerError::new("no such card")).await.unwrap();
    let inner = ScriptedConsumer::new("charge");
    let calls = inner.calls();
    assert_eq!(redrive(&mut dead_letter(letters, inner)).await.unwrap().handled, 0);
    assert!(calls.consumed_ids().is_empty());
}

#[tokio::test]
async fn an_error_that_ends_runs_ends_it_and_names_consumer_and_event() {
    let letters = requested(2).await;
    let inner = consumer_fn("charge", |_event: Event| async { Err(Error::fenced("charge").into()) });
    let error = redrive(&mut dead_letter(letters.clone(), inner)).await.unwrap_err();
    assert!(error.is_fenced());
    assert_eq!((error.consumer(), error.event_id()), (Some("charge"), Some(&1.into())));
    assert_eq!(letters.open("charge").len(), 2);
}

#[tokio::test]
async fn a_store_that_fails_is_the_error() {
    let letters = requested(1).await;
    letters.fail_next(Error::store("claim a letter", "connection refused"));
    let error = redrive(&mut dead_letter(letters, ScriptedConsumer::new("charge"))).await.unwrap_err();
    assert!(error.to_string().contains("claim a letter"), "{error}");
}

/// A consumer that moves a cursor itself, as transactional ones do, and so tells redrives from the stream.
struct OwnCursor {
    failures: u32,
}

impl Consumer for OwnCursor {
    fn name(&self) -> &str {
        "charge"
    }

    async fn consume(&mut self, _event: Event) -> Result<Progress, HandlerError> {
        Err(Error::fenced("charge").into())
    }

    async fn redrive(&mut self, _event: Event) -> Result<Progress, HandlerError> {
        if self.failures == 0 {
            return Ok(Progress::Done);
        }
        self.failures -= 1;
        Err(HandlerError::new("no answer"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_inside_of_patterns_is_told_that_it_is_a_redrive() {
    let letters = requested(2).await;
    let second = Duration::from_secs(1);
    let inner = BoxConsumer::new(rate_limit(1, second, retry([second; 3], OwnCursor { failures: 2 })));
    let redriven = redrive(&mut dead_letter(letters.clone(), inner)).await.unwrap();
    assert_eq!((redriven.handled, redriven.failed), (2, 0));
    assert!(letters.open("charge").is_empty());
}
