//! A stream that is dropped on one side is dropped on the other, with the stream of the source behind it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use reflex_core::{Error, Event, MemoryEvents, NewEvent, StreamFunc, StreamOptions};
use reflex_grpc::{Server, reflexpb::StreamRequest};
use reflex_testing::{eventually, poll_times};
use tonic::Request;

use crate::loopback::{DEADLINE, Loopback, next};

/// Counts the streams that are open.
#[derive(Clone, Default)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(self.clone())
    }

    async fn become_none(&self) {
        eventually("the source's streams to be dropped", DEADLINE, || async { self.count() == 0 }).await;
    }
}

struct Guard(Open);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A source of so many large events, and then none, that counts its streams.
fn source(open: Open, events: usize) -> impl StreamFunc<Stream: 'static> + 'static {
    let event = MemoryEvents::new().append(NewEvent::new(1, 1).metadata(vec![0; 10_000]));
    move |_options| {
        let (guard, event) = (open.enter(), event.clone());
        let items =
            stream::repeat_with(move || Ok::<Event, Error>(event.clone())).take(events).chain(stream::pending());
        let guarded = items.map(move |item| {
            let _open = &guard;
            item
        });
        async move { Ok(guarded) }
    }
}

#[tokio::test]
async fn streams_that_wait() {
    let open = Open::default();
    let loopback = Loopback::of(source(open.clone(), 1)).await;
    let mut events = loopback.client().open(StreamOptions::new()).await.unwrap().events;
    next(&mut events).await.unwrap();
    assert_eq!(open.count(), 1);
    drop(events);
    open.become_none().await;
}

#[tokio::test]
async fn streams_held_back_by_a_slow_reader() {
    let open = Open::default();
    let loopback = Loopback::of(source(open.clone(), usize::MAX)).await;
    let client = loopback.client();
    let mut events = client.open(StreamOptions::new()).await.unwrap().events;
    next(&mut events).await.unwrap();
    drop(events);
    open.become_none().await;
    let mut events = client.open(StreamOptions::new()).await.unwrap().events;
    next(&mut events).await.unwrap();
}

#[tokio::test]
async fn one_of_many_on_a_connection() {
    let open = Open::default();
    let loopback = Loopback::of(source(open.clone(), 1)).await;
    let client = loopback.client();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut events = client.open(StreamOptions::new()).await.unwrap().events;
        next(&mut events).await.unwrap();
        streams.push(events);
    }
    assert_eq!(open.count(), 20);
    streams.truncate(10);
    eventually("ten streams to be dropped", DEADLINE, || async { open.count() == 10 }).await;
    drop(streams);
    open.become_none().await;
}

/// At whichever point the client gives up.
#[tokio::test]
async fn streams_that_are_opening() {
    let open = Open::default();
    let loopback = Loopback::of(source(open.clone(), 1)).await;
    let client = loopback.client();
    for polls in 0..20 {
        drop(poll_times(polls, client.open(StreamOptions::new())).await);
    }
    open.become_none().await;
}

#[tokio::test]
async fn responses_that_the_server_drops() {
    let open = Open::default();
    let request = Request::new(StreamRequest::default());
    let response = Server::new().stream(&source(open.clone(), 1), request).await.unwrap();
    assert_eq!(open.count(), 1);
    drop(response);
    assert_eq!(open.count(), 0);
}
