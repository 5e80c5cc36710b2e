//! A shutdown ends a run in each of its states.

use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use reflex_core::{
    BufferedCursors, Cursor, CursorStore, Error, Event, MemoryCursors, Opened, Progress, Result, Shutdown, Spec,
    StreamFunc, StreamOptions, consumer_fn, run_until,
};
use reflex_testing::{Call, ScriptedConsumer, Step};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout},
};

use crate::support::{DEADLINE, filled, stored};

#[tokio::test]
async fn before_anything_else() {
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer);
    let error = run_until(&mut spec, ready(())).await.unwrap_err();
    assert!(error.is_stopped() && error.is_expected());
    assert!(calls.consumed().is_empty());
    assert_eq!(calls.all().last(), Some(&Call::Stop));
}

#[tokio::test]
async fn while_the_stream_opens() {
    let (opening, opened) = oneshot::channel();
    let source = NeverOpens(std::sync::Mutex::new(Some(opening)));
    let consumer = ScriptedConsumer::new("billing");
    let calls = consumer.calls();
    let mut spec = Spec::new(source, MemoryCursors::new(), consumer);
    let error = run_until(&mut spec, async { opened.await.unwrap() }).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!(calls.all(), [Call::Reset, Call::Stop]);
}

struct NeverOpens(std::sync::Mutex<Option<oneshot::Sender<()>>>);

impl StreamFunc for NeverOpens {
    type Stream = reflex_core::BoxEventStream;

    async fn open(&self, _options: StreamOptions) -> Result<Opened<Self::Stream>> {
        let opening = self.0.lock().unwrap().take();
        opening.unwrap().send(()).unwrap();
        pending().await
    }
}

#[tokio::test]
async fn while_idle_drains_and_flushes() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(2, Progress::Pending).on_drain(Progress::UpTo(3.into()));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(3), BufferedCursors::new(cursors.clone()), consumer);
    let error = run_until(&mut spec, calls.await_consumed(3, DEADLINE)).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!(error.consumer(), Some("batch"));
    assert_eq!(calls.all()[4..], [Call::Drain, Call::Stop]);
    assert_eq!(stored(&cursors, "batch"), Some(3));
}

#[tokio::test]
async fn a_drain_that_fails_is_the_error() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending).on_drain(Step::fail("not finished"));
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), cursors.clone(), consumer);
    let error = run_until(&mut spec, calls.await_consumed(1, DEADLINE)).await.unwrap_err();
    assert!(!error.is_stopped(), "{error}");
    assert_eq!(stored(&cursors, "batch"), None);
    assert_eq!(calls.all().last(), Some(&Call::Stop));
}

#[tokio::test(start_paused = true)]
async fn while_waiting_for_lag() {
    let cursors = MemoryCursors::new();
    let consumer = ScriptedConsumer::new("late");
    let calls = consumer.calls();
    let mut spec = Spec::new(filled(1), cursors.clone(), consumer).lag(Duration::from_secs(3_600));
    let start = Instant::now();
    let error = run_until(&mut spec, sleep(Duration::from_secs(600))).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!(start.elapsed().as_secs(), 600);
    assert_eq!(calls.all(), [Call::Reset, Call::Drain, Call::Stop]);
    assert_eq!(stored(&cursors, "late"), None);
}

#[tokio::test]
async fn while_consuming_finishes_the_event_in_hand_and_no_other() {
    let cursors = MemoryCursors::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let consumer = consumer_fn("billing", move |_event: Event| {
        stop.take().map(|stop| stop.send(()));
        // The work of this event.
        async {
            sleep(Duration::from_millis(5)).await;
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(50), BufferedCursors::new(cursors.clone()), consumer);
    let error = run_until(&mut spec, async { stopped.await.unwrap() }).await.unwrap_err();
    assert!(error.is_stopped());
    assert_eq!(stored(&cursors, "billing"), Some(1));
}

/// A store that needs something to happen outside before it has done its work.
struct Waiting {
    cursors: MemoryCursors,
    asked: Notify,
    answered: Notify,
}

impl Waiting {
    async fn wait(&self) {
        self.asked.notify_one();
        self.answered.notified().await;
    }
}

impl CursorStore for Waiting {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.cursors.get(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.wait().await;
        self.cursors.set(consumer, cursor).await
    }

    async fn flush(&self) -> Result<()> {
        self.wait().await;
        Ok(())
    }
}

/// Both may need the same connection, for example: who waits for it and is not asked again would keep it from all others.
#[tokio::test]
async fn goes_on_being_asked_while_cursors_are_written() {
    let store = Waiting { cursors: MemoryCursors::new(), asked: Notify::new(), answered: Notify::new() };
    let store = Arc::new(store);
    let shutdown = async {
        loop {
            store.asked.notified().await;
            store.answered.notify_one();
        }
    };
    let mut spec = Spec::new(filled(3), store.clone(), ScriptedConsumer::new("billing")).to_head();
    let end = timeout(DEADLINE, run_until(&mut spec, shutdown)).await.expect("cursors are written").unwrap_err();
    assert!(end.is_head_reached());
    assert_eq!(stored(&store.cursors, "billing"), Some(3));
}

#[tokio::test]
async fn is_known_to_a_handler_that_waits_and_to_the_tasks_that_it_spawns() {
    let cursors = MemoryCursors::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let consumer = consumer_fn("billing", move |_event: Event| {
        let shutdown = Shutdown::current();
        assert!(!shutdown.is_requested());
        stop.take().map(|stop| stop.send(()));
        async move {
            tokio::spawn(shutdown.scope(async { Shutdown::current().requested().await })).await?;
            assert!(Shutdown::current().is_requested());
            Err(Error::stopped().into())
        }
    });
    let mut spec = Spec::new(filled(2), cursors.clone(), consumer);
    let error = run_until(&mut spec, async { stopped.await.unwrap() }).await.unwrap_err();
    assert!(error.is_stopped(), "{error}");
    assert_eq!(error.event_id(), Some(&1.into()));
    assert_eq!(stored(&cursors, "billing"), None);
}

#[tokio::test]
async fn is_requested_of_tasks_that_outlive_a_dropped_run() {
    let (tell, told) = oneshot::channel::<Shutdown>();
    let mut tell = Some(tell);
    let consumer = consumer_fn("billing", move |_event: Event| {
        tell.take().map(|tell| tell.send(Shutdown::current()));
        pending()
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer);
    let shutdown = tokio::select! {
        _ = reflex_core::run(&mut spec) => unreachable!("the handler never returns"),
        shutdown = told => shutdown.unwrap(),
    };
    assert!(shutdown.is_requested());
    shutdown.requested().await;
    assert!(!Shutdown::current().is_requested(), "there is no run here");
}
