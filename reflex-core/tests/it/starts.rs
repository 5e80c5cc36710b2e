//! Where a run starts and where it ends.

use reflex_core::{BufferedCursors, CursorStore, MemoryCursors, MemoryEvents, NewEvent, Spec, run, run_until};
use reflex_testing::{Call, ScriptedConsumer, await_cursor, poll_times};

use crate::support::{DEADLINE, append, filled, stored};

#[tokio::test]
async fn to_head_consumes_what_there_is_and_drains() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head();
    let error = run(&mut spec).await.unwrap_err();
    assert!(error.is_head_reached());
    assert_eq!(error.consumer(), Some("billing"));
    let expected = [
        Call::Reset,
        Call::Consume(1.into()),
        Call::Consume(2.into()),
        Call::Consume(3.into()),
        Call::Drain,
        Call::Stop,
    ];
    assert_eq!(calls.all(), expected);
    assert_eq!(stored(&cursors, "billing"), Some(3));

    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed().len(), 3);
}

#[tokio::test]
async fn a_run_starts_after_the_stored_cursor() {
    let cursors = MemoryCursors::new();
    cursors.set("billing", &2.into()).await.unwrap();
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    assert!(run(&mut Spec::new(filled(4), cursors, consumer).to_head()).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [3, 4]);
}

#[tokio::test]
async fn from_head_overrides_the_cursor_and_stores_the_position_at_once() {
    let (events, cursors) = (filled(5), MemoryCursors::new());
    cursors.set("billing", &2.into()).await.unwrap();
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(events.clone(), BufferedCursors::new(cursors.clone()), consumer).from_head();
    assert!(poll_times(1, run(&mut spec)).await.is_none());
    assert_eq!(stored(&cursors, "billing"), Some(5), "a restart would miss what comes before the first event");
    assert!(calls.consumed().is_empty());

    // The process restarts without the option, after events came that it did not see.
    append(&events, 2);
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    assert!(run(&mut Spec::new(events, cursors, consumer).to_head()).await.unwrap_err().is_head_reached());
    assert_eq!(calls.consumed_ids(), [6, 7]);
}

#[tokio::test]
async fn from_head_delivers_what_comes_after_the_start() {
    let (events, cursors) = (filled(5), MemoryCursors::new());
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(events.clone(), cursors.clone(), consumer).from_head();
    let shutdown = async {
        // The position is stored when the stream is open.
        await_cursor(&cursors, "billing", 5, DEADLINE).await.unwrap();
        events.append(NewEvent::new("order-6", 1));
        calls.await_consumed(1, DEADLINE).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(calls.consumed_ids(), [6]);
}

#[tokio::test]
async fn from_head_keeps_a_cursor_that_is_at_the_head() {
    let (events, cursors) = (filled(5), MemoryCursors::new());
    cursors.set("billing", &5.into()).await.unwrap();
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(events, cursors.clone(), consumer).from_head().to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    assert!(calls.consumed().is_empty());
    assert_eq!(stored(&cursors, "billing"), Some(5));
}

/// A source may pin a head that is behind the stored cursor, to be sure of what is in flight.
#[tokio::test]
async fn from_head_never_repeats_what_is_before_the_cursor() {
    for buffered in [false, true] {
        let (events, cursors) = (filled(5), MemoryCursors::new());
        cursors.set("billing", &4.into()).await.unwrap();
        let consumer = ScriptedConsumer::new("billing");
        let calls = consumer.calls();
        let source = BehindHead(events);
        let ended = if buffered {
            run(&mut Spec::new(source, BufferedCursors::new(cursors.clone()), consumer).from_head().to_head()).await
        } else {
            run(&mut Spec::new(source, cursors.clone(), consumer).from_head().to_head()).await
        };
        assert!(ended.unwrap_err().is_head_reached());
        assert_eq!(calls.consumed_ids(), [5]);
        assert_eq!(stored(&cursors, "billing"), Some(5));
    }
}

/// Pins two events before the head.
struct BehindHead(MemoryEvents);

impl reflex_core::StreamFunc for BehindHead {
    type Stream = reflex_core::BoxEventStream;

    async fn open(
        &self,
        options: reflex_core::StreamOptions,
    ) -> reflex_core::Result<reflex_core::Opened<Self::Stream>> {
        if options.start() != &reflex_core::Start::Head {
            return self.0.open(options).await;
        }
        let head = self.0.open(options.clone()).await?.position.and_then(|head| head.as_i64()).unwrap_or_default();
        Ok(self.0.open(options.after(head - 2)).await?.at(head - 2))
    }
}
