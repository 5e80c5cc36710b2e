//! A server that is asked to stop ends its streams, whatever they are doing.

use std::{future::pending, time::Duration};

use futures_util::stream;
use reflex_core::{Error, Event, MemoryEvents, NewEvent, StreamFunc, StreamOptions};
use reflex_grpc::{Server, reflexpb::reflex_client::ReflexClient};
use tokio::{net::TcpListener, sync::oneshot, time::timeout};
use tonic::transport::{Server as Transport, server::TcpIncoming};

use crate::loopback::{DEADLINE, Loopback, endpoint, next};

async fn serving<S: StreamFunc<Stream: 'static> + 'static>(source: S) -> (Server, Loopback) {
    let server = Server::new();
    let loopback = Loopback::serve(server.service(source)).await;
    (server, loopback)
}

#[tokio::test]
async fn streams_that_wait_end_and_later_ones_do_not_open() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new(1, 1));
    let (server, loopback) = serving(events).await;
    let client = loopback.client();
    let mut caught_up = client.open(StreamOptions::new()).await.unwrap().events;
    next(&mut caught_up).await.unwrap();
    let mut held_back = client.open(StreamOptions::new().lag(Duration::from_secs(3_600))).await.unwrap().events;

    server.stop();
    server.clone().stop();
    assert!(next(&mut caught_up).await.unwrap_err().is_stopped());
    assert!(next(&mut held_back).await.unwrap_err().is_stopped());
    assert!(client.open(StreamOptions::new()).await.unwrap_err().is_stopped());
}

#[tokio::test]
async fn a_stream_with_more_to_come_ends() {
    let endless =
        |_| async { Ok(stream::repeat_with(|| Ok::<Event, Error>(MemoryEvents::new().append(NewEvent::new(1, 1))))) };
    let (server, loopback) = serving(endless).await;
    let mut events = loopback.client().open(StreamOptions::new()).await.unwrap().events;
    next(&mut events).await.unwrap();
    server.stop();
    let end = async {
        loop {
            if let Err(end) = next(&mut events).await {
                return end;
            }
        }
    };
    assert!(timeout(DEADLINE, end).await.unwrap().is_stopped());
}

#[tokio::test]
async fn a_stream_that_is_opening_ends() {
    let (begun, beginning) = oneshot::channel();
    let begun = std::sync::Mutex::new(Some(begun));
    let never = move |_| {
        let begun = begun.lock().unwrap().take();
        async move {
            begun.unwrap().send(()).unwrap();
            pending::<()>().await;
            Ok(stream::empty::<Result<Event, Error>>())
        }
    };
    let (server, loopback) = serving(never).await;
    let client = loopback.client();
    let opening = tokio::spawn(async move { client.open(StreamOptions::new()).await.map(drop) });
    beginning.await.unwrap();
    server.stop();
    assert!(timeout(DEADLINE, opening).await.unwrap().unwrap().unwrap_err().is_stopped());
}

/// The order that the documentation asks for: tonic shuts down once the streams have ended.
#[tokio::test]
async fn tonic_shuts_down_gracefully() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new();
    let (shut_down, signal) = oneshot::channel::<()>();
    let service = server.service(MemoryEvents::new());
    let serving = tokio::spawn(async move {
        let signal = async {
            signal.await.unwrap();
            server.stop();
        };
        let incoming = TcpIncoming::from(listener);
        Transport::builder().add_service(service).serve_with_incoming_shutdown(incoming, signal).await
    });
    let client = ReflexClient::new(endpoint(address).connect_lazy());
    let mut events = client.open(StreamOptions::new()).await.unwrap().events;
    shut_down.send(()).unwrap();
    assert!(next(&mut events).await.unwrap_err().is_stopped());
    timeout(DEADLINE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_server_stops_nothing() {
    let events = MemoryEvents::new();
    let (server, loopback) = serving(events.clone()).await;
    let mut stream = loopback.client().open(StreamOptions::new()).await.unwrap().events;
    drop(server);
    events.append(NewEvent::new(1, 1));
    assert_eq!(next(&mut stream).await.unwrap().id(), &1.into());
}
