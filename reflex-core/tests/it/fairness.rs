//! A stream that always has an event starves nobody. All on one thread.

use std::{
    future::{Future, poll_fn, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use reflex_core::{Consumer, Event, HandlerError, MemoryCursors, Progress, Spec, consumer_fn, run, run_until};
use tokio::{sync::oneshot, time::sleep};

use crate::support::endless;

#[tokio::test]
async fn not_the_shutdown_nor_other_tasks() {
    // A single run may be interrupted by the machine before it has to yield.
    for _ in 0..10 {
        let consumed = consumed_before_another_task().await;
        assert!(consumed <= GRANTED, "{consumed} events were consumed before another task had its turn");
    }
}

/// The runtime grants 128 turns, of 32 events each, before it wants its thread back.
const GRANTED: usize = 128 * 32;

async fn consumed_before_another_task() -> usize {
    // A flag, because a channel of the runtime would give the thread back by itself.
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = stopped.clone();
    let other = tokio::spawn(async move { stop.store(true, Ordering::SeqCst) });
    let shutdown = poll_fn(|_cx| if stopped.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending });
    let mut consumed = 0;
    let consumer = consumer_fn("fast", |_event| {
        consumed += 1;
        ready(Ok(()))
    });
    let mut spec = Spec::new(endless, MemoryCursors::new(), consumer);
    let error = run_until(&mut spec, shutdown).await.unwrap_err();
    drop(spec);
    assert!(error.is_stopped(), "{error}");
    other.await.unwrap();
    consumed
}

#[tokio::test]
async fn not_the_timer_of_the_consumer() {
    struct Timed(std::pin::Pin<Box<tokio::time::Sleep>>);
    impl Consumer for Timed {
        fn name(&self) -> &str {
            "timed"
        }
        async fn consume(&mut self, _event: Event) -> Result<Progress, HandlerError> {
            Ok(Progress::Pending)
        }
        fn ready(&mut self) -> impl Future<Output = ()> + Send {
            self.0.as_mut()
        }
        async fn advance(&mut self) -> Result<Progress, HandlerError> {
            Err(HandlerError::new("the timer"))
        }
    }
    let consumer = Timed(Box::pin(sleep(Duration::from_millis(5))));
    let error = run(&mut Spec::new(endless, MemoryCursors::new(), consumer)).await.unwrap_err();
    assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("the timer"), "{error}");
}

/// Handlers that compute without ever waiting: what a shutdown takes must not grow with the events that are there.
#[tokio::test]
async fn not_by_a_handler_that_only_computes() {
    let (stop, stopped) = oneshot::channel();
    let other = tokio::spawn(async move { stop.send(()).unwrap() });
    let mut consumed = 0;
    let consumer = consumer_fn("slow", |_event| {
        consumed += 1;
        let since = std::time::Instant::now();
        while since.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        ready(Ok(()))
    });
    let mut spec = Spec::new(endless, MemoryCursors::new(), consumer);
    assert!(run_until(&mut spec, async { stopped.await.unwrap() }).await.unwrap_err().is_stopped());
    drop(spec);
    assert!(consumed < 5, "{consumed} events were consumed before another task had its turn");
    other.await.unwrap();
}
