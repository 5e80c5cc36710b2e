//! Acknowledgements: what they store, in any order, from anywhere, and what they wait for.

use std::{sync::Arc, time::Duration};

use reflex_core::{
    Cursor, CursorStore, Error, Event, EventParts, HandlerError, MemoryCursors, Operation, Result, Spec, StreamOptions,
    run, run_until,
};
use rpatterns::{AckEvent, ack};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};

use crate::support::{DEADLINE, Notes, append, filled, stored};

const SECOND: Duration = Duration::from_secs(1);

/// A consumer that sends its events on, to be acknowledged by the test.
fn handing_on(
    cursors: &MemoryCursors,
) -> (rpatterns::AckConsumer<impl FnMut(AckEvent) -> HandedOn + Send>, mpsc::Receiver<AckEvent>) {
    let (sender, events) = mpsc::channel(100);
    let consumer = ack("ship", cursors.clone(), move |event: AckEvent| {
        let sender = sender.clone();
        Box::pin(async move { Ok(sender.send(event).await?) }) as HandedOn
    });
    (consumer, events)
}

type HandedOn = std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

async fn take<const N: usize>(events: &mut mpsc::Receiver<AckEvent>) -> [AckEvent; N] {
    let mut taken = Vec::new();
    while taken.len() < N {
        taken.push(tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap());
    }
    taken.try_into().unwrap()
}

#[tokio::test]
async fn the_run_sets_no_cursor_and_each_acknowledgement_stores_it_at_once() {
    let cursors = MemoryCursors::new();
    let (consumer, mut events) = handing_on(&cursors);
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer);
    let script = async {
        let [first, second, third] = take(&mut events).await;
        assert_eq!(stored(&cursors, "ship"), None);
        first.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(1));
        second.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(2));
        drop(third);
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(2), "what was dropped is not acknowledged");
}

#[tokio::test]
async fn out_of_order_the_cursor_waits_for_the_first_that_is_not_acknowledged() {
    let cursors = MemoryCursors::new();
    let (consumer, mut events) = handing_on(&cursors);
    let mut spec = Spec::new(filled(4), cursors.clone(), consumer);
    let script = async {
        let [first, second, third, fourth] = take(&mut events).await;
        tokio::spawn(async move { third.ack().await }).await.unwrap().unwrap();
        second.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), None);
        first.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(3));
        first.ack().await.unwrap();
        assert_eq!((stored(&cursors, "ship"), fourth.event().foreign_id()), (Some(3), "order-4"));
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
}

#[tokio::test]
async fn the_last_event_of_some_can_be_acknowledged_for_all() {
    let cursors = MemoryCursors::new();
    let (consumer, mut events) = handing_on(&cursors);
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer);
    let script = async {
        let [_, second, third, fourth, fifth] = take(&mut events).await;
        fourth.ack_up_to().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(4));
        second.ack_up_to().await.unwrap();
        third.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(4), "it does not go back");
        fifth.ack().await.unwrap();
        assert_eq!(stored(&cursors, "ship"), Some(5));
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
}

#[tokio::test]
async fn cursors_without_an_order_do_not_go_back_either() {
    let source = |_options: StreamOptions| async {
        let events = ["c", "b", "a"].map(|id| Ok(text_event(id)));
        Ok(futures_util::stream::iter(events.into_iter().chain([Err(Error::head_reached())])))
    };
    let cursors = MemoryCursors::new();
    let (consumer, mut events) = handing_on(&cursors);
    assert!(run(&mut Spec::new(source, cursors.clone(), consumer)).await.unwrap_err().is_head_reached());
    let [first, second, third] = take(&mut events).await;
    second.ack_up_to().await.unwrap();
    first.ack().await.unwrap();
    assert_eq!(cursors.get("ship").await.unwrap(), Some("b".into()));
    third.ack().await.unwrap();
    assert_eq!(cursors.get("ship").await.unwrap(), Some("a".into()));
}

/// A store that notes what it is to store, and stores it when it is allowed to.
#[derive(Clone)]
struct Gate {
    cursors: MemoryCursors,
    asked: Notes<Cursor>,
    open: Arc<Semaphore>,
}

impl CursorStore for Gate {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        self.cursors.get(consumer).await
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.asked.add(cursor.clone());
        self.open.acquire().await.unwrap().forget();
        self.cursors.set(consumer, cursor).await
    }
}

#[tokio::test]
async fn acknowledgements_at_the_same_time_are_stored_one_after_the_other_and_once() {
    let source = |_options: StreamOptions| async {
        let events = ["b", "a"].map(|id| Ok(text_event(id)));
        Ok(futures_util::stream::iter(events.into_iter().chain([Err(Error::head_reached())])))
    };
    let gate = Gate { cursors: MemoryCursors::new(), asked: Notes::new(), open: Arc::new(Semaphore::new(0)) };
    let taken = Notes::new();
    let noted = taken.clone();
    let consumer = ack("ship", gate.clone(), move |event: AckEvent| {
        noted.add(Arc::new(event));
        async { Ok(()) }
    });
    assert!(run(&mut Spec::new(source, gate.clone(), consumer)).await.unwrap_err().is_head_reached());
    let [first, second] = <[_; 2]>::try_from(taken.all()).unwrap();
    let acknowledged = async {
        let (earlier, later) = tokio::join!(first.ack(), second.ack());
        earlier.and(later).unwrap();
        second.ack().await.unwrap();
    };
    let opened = async {
        tokio::task::yield_now().await;
        assert_eq!(gate.asked.len(), 1, "the second waits for the first");
        gate.open.add_permits(9);
    };
    tokio::join!(acknowledged, opened);
    assert_eq!(gate.asked.all(), ["b".into(), "a".into()]);
    assert_eq!(gate.get("ship").await.unwrap(), Some("a".into()));
}

fn text_event(id: &str) -> Event {
    let (timestamp, metadata, trace) = (chrono::Utc::now(), b"".as_slice(), b"".as_slice());
    Event::from(EventParts { id: id.into(), event_type: 1.into(), foreign_id: "order-1", timestamp, metadata, trace })
}

#[tokio::test]
async fn an_acknowledgement_that_failed_can_be_repeated() {
    for operation in [Operation::Set, Operation::Flush] {
        let cursors = MemoryCursors::new();
        let (consumer, mut events) = handing_on(&cursors);
        let mut spec = Spec::new(filled(2), cursors.clone(), consumer);
        let script = async {
            let [first, second] = take(&mut events).await;
            cursors.fail_next(operation, Error::store("write a cursor", "connection refused"));
            assert_eq!(first.ack().await.unwrap_err().to_string(), "write a cursor");
            first.ack().await.unwrap();
            assert_eq!(stored(&cursors, "ship"), Some(1));
            second.ack().await.unwrap();
        };
        assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
        assert_eq!(stored(&cursors, "ship"), Some(2));
    }
}

#[tokio::test]
async fn events_of_an_earlier_run_can_be_acknowledged_until_a_later_one_is_ahead() {
    let (events, cursors) = (filled(2), MemoryCursors::new());
    let (consumer, mut handed_on) = handing_on(&cursors);
    let mut spec = Spec::new(events.clone(), cursors.clone(), consumer).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    let [first, second] = take(&mut handed_on).await;
    first.ack().await.unwrap();
    assert_eq!(stored(&cursors, "ship"), Some(1));

    append(&events, 1);
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    let [_, third] = take(&mut handed_on).await;
    third.ack_up_to().await.unwrap();
    assert!(second.ack().await.unwrap_err().is_cursor_backwards());
    assert_eq!(stored(&cursors, "ship"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_the_next_event_waits_for_an_acknowledgement_or_a_shutdown() {
    let cursors = MemoryCursors::new();
    let (consumer, mut events) = handing_on(&cursors);
    let mut spec = Spec::new(filled(9), cursors.clone(), consumer.max_unacknowledged(2));
    let script = async {
        let [first, second] = take(&mut events).await;
        sleep(SECOND).await;
        assert!(events.try_recv().is_err());
        second.ack().await.unwrap();
        sleep(SECOND).await;
        assert!(events.try_recv().is_err(), "the first one is still not acknowledged");
        first.ack().await.unwrap();
        let [_, fourth] = take(&mut events).await;
        assert_eq!(fourth.event().foreign_id(), "order-4");
        sleep(SECOND).await;
        assert!(events.try_recv().is_err());
    };
    assert!(run_until(&mut spec, script).await.unwrap_err().is_stopped());
    assert_eq!(stored(&cursors, "ship"), Some(2));
}

#[tokio::test]
async fn an_error_of_the_handler_ends_the_run() {
    let cursors = MemoryCursors::new();
    let consumer = ack("ship", cursors.clone(), |_event: AckEvent| async { Err(HandlerError::new("no room")) });
    let error = run(&mut Spec::new(filled(1), cursors.clone(), consumer)).await.unwrap_err();
    assert_eq!((error.consumer(), error.event_id()), (Some("ship"), Some(&1.into())));
}

#[tokio::test]
async fn a_limit_of_zero_is_refused() {
    let cursors = MemoryCursors::new();
    let (consumer, _events) = handing_on(&cursors);
    let error = run(&mut Spec::new(filled(1), cursors.clone(), consumer.max_unacknowledged(0))).await.unwrap_err();
    assert!(error.is_invalid(), "{error}");
}

/// Handlers acknowledge in tasks of their own, and runs are dropped: nothing is passed over that was not acknowledged.
#[tokio::test]
async fn a_run_that_is_dropped_loses_nothing() {
    let (events, cursors, done) = (filled(30), MemoryCursors::new(), Notes::new());
    for polls in 1.. {
        let (tasks, noted) = (Arc::new(std::sync::Mutex::new(tokio::task::JoinSet::new())), done.clone());
        let spawn = tasks.clone();
        let consumer = ack("ship", cursors.clone(), move |event: AckEvent| {
            let noted = noted.clone();
            spawn.lock().unwrap().spawn(async move {
                noted.add(event.event().id().as_i64().unwrap());
                event.ack().await
            });
            async {
                tokio::task::yield_now().await;
                Ok(())
            }
        });
        let mut spec = Spec::new(events.clone(), cursors.clone(), consumer).to_head();
        let ended = reflex_testing::poll_times(polls, run(&mut spec)).await;
        // Dropping the tasks is the crash of the process.
        drop(tasks);
        if ended.is_some() {
            break;
        }
        tokio::task::yield_now().await;
        let last = stored(&cursors, "ship").unwrap_or(0);
        assert!((1..=last).all(|id| done.all().contains(&id)), "{last}");
    }
    assert!((1..=30).all(|id| done.all().contains(&id)));
}
