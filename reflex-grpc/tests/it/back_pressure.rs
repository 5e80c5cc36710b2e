//! What a slow reader costs: the server holds back, and nothing is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::DateTime;
use futures_util::{StreamExt, stream};
use reflex_core::{Error, Event, EventParts, StreamFunc, StreamOptions};
use reflex_grpc::reflexpb::reflex_client::ReflexClient;
use tokio::time::{sleep, timeout};

use crate::loopback::{DEADLINE, Loopback};

const METADATA: &[u8] = &[b'x'; 100];

/// The window of a stream, by default 2 MiB, and the buffers of both sides, in events of 140 bytes.
const MOST_AHEAD: u64 = 25_000;

/// The reader pauses once for so many events.
const PAUSE_EVERY: u64 = 10_000;

/// A source that makes events as they are taken, and counts them.
fn source(events: u64, produced: Arc<AtomicU64>) -> impl StreamFunc<Stream: 'static> + 'static {
    move |_options| {
        let produced = produced.clone();
        let events = (1..=events).map(move |id| {
            produced.fetch_add(1, Ordering::SeqCst);
            Ok(Event::from(EventParts {
                id: id.cast_signed().into(),
                event_type: 1.into(),
                foreign_id: "order-12",
                timestamp: DateTime::default(),
                metadata: METADATA,
                trace: b"",
            }))
        });
        let events = stream::iter(events.chain([Err(Error::head_reached())]));
        async move { Ok(events) }
    }
}

/// Reads so many events slowly and returns by how many the server was ahead at most.
async fn most_ahead(events: u64, window: Option<u32>) -> u64 {
    let produced = Arc::new(AtomicU64::new(0));
    let loopback = Loopback::of(source(events, produced.clone())).await;
    let client = ReflexClient::new(loopback.endpoint().initial_stream_window_size(window).connect_lazy());
    let mut stream = client.open(StreamOptions::new().to_head()).await.unwrap().events;
    let (mut consumed, mut most) = (0, 0);
    loop {
        match timeout(DEADLINE, stream.next()).await.unwrap().unwrap() {
            Ok(event) => consumed = event.id_as_i64().unwrap().cast_unsigned(),
            Err(end) if end.is_head_reached() => break,
            Err(error) => panic!("{error:?}"),
        }
        if consumed % PAUSE_EVERY == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        most = most.max(produced.load(Ordering::SeqCst) - consumed);
    }
    assert_eq!(consumed, events);
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_events_with_a_slow_reader() {
    let most = most_ahead(1_000_000, None).await;
    assert!(most <= MOST_AHEAD, "the server was {most} events ahead of its reader");
}

/// How far the server runs ahead is the channel's to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smaller_window_holds_the_server_back_sooner() {
    let most = most_ahead(100_000, Some(64 * 1024)).await;
    assert!(most <= MOST_AHEAD / 4, "the server was {most} events ahead of its reader");
}
