//! Best effort: what fails is passed over, and only that.

use reflex_core::{Error, Event, HandlerError, MemoryCursors, Spec, consumer_fn, run};
use reflex_testing::{ScriptedConsumer, Step};
use rpatterns::{batch_by_len, best_effort};

use crate::support::{Notes, Scrape, filled, stored};

#[tokio::test]
async fn an_event_that_fails_is_passed_over_and_counted() {
    let (scrape, cursors) = (Scrape::new(), MemoryCursors::new());
    let inner = ScriptedConsumer::new("notify").at(1, Step::fail("no such address")).at(2, Step::fail("nor this"));
    let calls = inner.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), best_effort(inner).metrics(&scrape.metrics)).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [1, 2, 3], "each once");
    assert_eq!(stored(&cursors, "notify"), Some(3));
    assert_eq!(scrape.consumer("reflex_consumer_given_up_events_count", "notify"), Some(2.0));
}

/// A counter that begins at 1 has not grown, to those who ask Prometheus for an increase.
#[tokio::test]
async fn what_was_passed_over_is_counted_from_zero() {
    let scrape = Scrape::new();
    let notify = best_effort(ScriptedConsumer::new("notify")).metrics(&scrape.metrics);
    assert!(
        run(&mut Spec::new(filled(1), MemoryCursors::new(), notify).to_head()).await.unwrap_err().is_head_reached()
    );
    assert_eq!(scrape.consumer("reflex_consumer_given_up_events_count", "notify"), Some(0.0));
}

#[tokio::test]
async fn an_expected_or_fencing_error_ends_the_run() {
    for make in [Error::stopped as fn() -> Error, || Error::fenced("notify")] {
        let cursors = MemoryCursors::new();
        let inner = consumer_fn("notify", move |_event: Event| async move { Err(make().into()) });
        let mut spec = Spec::new(filled(1), cursors.clone(), best_effort(inner)).to_head();
        let error = run(&mut spec).await.unwrap_err();
        assert!(error.is_stopped() || error.is_fenced(), "{error}");
        assert_eq!(stored(&cursors, "notify"), None);
    }
}

#[tokio::test]
async fn only_the_events_that_spoil_a_batch_are_passed_over() {
    let handled = Notes::new();
    let noted = handled.clone();
    let inner = consumer_fn("index", move |batch: Vec<Event>| {
        let ids: Vec<_> = batch.iter().filter_map(|event| event.id().as_i64()).collect();
        let spoilt = ids.iter().any(|id| [3, 4, 7].contains(id));
        if !spoilt {
            ids.iter().for_each(|id| noted.add(*id));
        }
        async move { if spoilt { Err(HandlerError::new("spoilt")) } else { Ok(()) } }
    });
    let cursors = MemoryCursors::new();
    let mut spec = Spec::new(filled(10), cursors.clone(), batch_by_len(10, best_effort(inner))).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(handled.all(), [1, 2, 5, 6, 8, 9, 10]);
    assert_eq!(stored(&cursors, "index"), Some(10));
}

#[tokio::test]
async fn a_consumer_inside_that_answers_later_is_refused() {
    let inner = consumer_fn("index", |_batch: Vec<Event>| async { Ok(()) });
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), best_effort(batch_by_len(2, inner)));
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("put best_effort around the handler"), "{error}");
}
