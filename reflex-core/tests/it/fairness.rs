//! A stream that always has an event starves nobody. All on one thread.

use std::{
    future::{Future, ready},
    time::Duration,
};

use reflex_core::{Consumer, Event, HandlerError, MemoryCursors, Progress, Spec, consumer_fn, run, run_until};
use tokio::{sync::oneshot, time::sleep};

use crate::support::endless;

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
    let consumed = consumed_while_each_takes(Duration::from_millis(2)).await;
    assert!(consumed < 5, "{consumed} events were consumed before another task had its turn");
}

#[tokio::test]
async fn not_by_handlers_that_compute_a_little_each() {
    let consumed = consumed_while_each_takes(Duration::from_micros(100)).await;
    assert!(consumed <= 64, "{consumed} events were consumed before another task had its turn");
}

/// One turn of the loop is over sooner than others are let in. What the runtime grants by itself is about 4,000 events.
#[tokio::test]
async fn not_by_handlers_that_are_quick() {
    let consumed = consumed_while_each_takes(Duration::from_micros(10)).await;
    assert!(consumed <= 1_000, "{consumed} events were consumed before another task had its turn");
}

/// How many events are consumed before another task has its turn, and the run hears from it.
async fn consumed_while_each_takes(time: Duration) -> usize {
    let (stop, stopped) = oneshot::channel();
    let other = tokio::spawn(async move { stop.send(()).unwrap() });
    let mut consumed = 0;
    let consumer = consumer_fn("computes", |_event| {
        consumed += 1;
        let since = std::time::Instant::now();
        while since.elapsed() < time {
            std::hint::spin_loop();
        }
        ready(Ok(()))
    });
    let mut spec = Spec::new(endless, MemoryCursors::new(), consumer);
    assert!(run_until(&mut spec, async { stopped.await.unwrap() }).await.unwrap_err().is_stopped());
    drop(spec);
    other.await.unwrap();
    consumed
}
