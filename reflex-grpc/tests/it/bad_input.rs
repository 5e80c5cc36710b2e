//! What cannot be used is refused with an error that says what is wrong, and the next one works.

use std::time::Duration;

use chrono::DateTime;
use futures_util::stream;
use reflex_core::{Cursor, Error, Event, EventParts, MemoryEvents, NewEvent, StreamFunc, StreamOptions};
use reflex_grpc::{
    reflexpb::{self, StreamRequest, reflex_client::ReflexClient},
    stream_func,
};
use reflex_testing::collect;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Code, Response, Status,
    metadata::MetadataValue,
    service::Routes,
    transport::{Server as Transport, server::TcpIncoming},
};

use crate::loopback::{Loopback, chain, endpoint, next};

#[track_caller]
fn check_says(error: &Error, parts: &[&str]) {
    let text = chain(error);
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

fn one_event() -> MemoryEvents {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-12", 1));
    events
}

#[tokio::test]
async fn a_server_without_the_method() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    let serving = Transport::builder().add_routes(Routes::default()).serve_with_incoming(TcpIncoming::from(listener));
    tasks.spawn(serving);
    let client = ReflexClient::new(endpoint(address).connect_lazy());
    let error = client.open(StreamOptions::new().after(3)).await.unwrap_err();
    check_says(&error, &["after cursor `3`", "no such method", "is the service added", "Unimplemented"]);
    assert!(!error.is_expected() && !error.is_invalid());
}

#[tokio::test]
async fn cursors_that_the_source_does_not_know() {
    let loopback = Loopback::of(one_event()).await;
    let client = loopback.client();
    for cursor in ["no-cursor", "-1", "9223372036854775807", "99999999999999999999", "\0", "é"] {
        let error = client.open(StreamOptions::new().after(cursor)).await.unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        check_says(&error, &[&format!("after cursor `{cursor}`"), "InvalidArgument"]);
    }
    let status = client.clone().stream(StreamRequest { after: "x".to_owned(), options: None }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(collect(&client, StreamOptions::new()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn lags_that_are_none() {
    let loopback = Loopback::of(one_event()).await;
    let mut client = loopback.client();
    for (seconds, nanos) in [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, i32::MIN)] {
        let options =
            reflexpb::StreamOptions { lag: Some(prost_types::Duration { seconds, nanos }), ..Default::default() };
        let request = StreamRequest { options: Some(options), after: String::new() };
        let status = client.stream(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{seconds} s, {nanos} ns");
        assert!(status.message().contains(&format!("{seconds} s and {nanos} ns")), "{}", status.message());
    }
    let longest = StreamOptions::new().lag(Duration::from_secs(315_576_000_000)).to_head();
    assert_eq!(collect(&client, longest).await.unwrap().len(), 0);
}

#[tokio::test]
async fn options_that_the_messages_cannot_express() {
    let client = Loopback::of(one_event()).await.client();
    let error = client.open(StreamOptions::new().after("")).await.unwrap_err();
    check_says(&error, &["empty cursor"]);
    let error = client.open(StreamOptions::new().lag(Duration::MAX)).await.unwrap_err();
    check_says(&error, &["lag", "10,000 years"]);
}

#[tokio::test]
async fn messages_larger_than_the_limit() {
    let events = one_event();
    events.append(NewEvent::new("order-13", 1).metadata(vec![7; 5 << 20]));
    let loopback = Loopback::of(events).await;
    let mut opened = loopback.client().open(StreamOptions::new()).await.unwrap();
    next(&mut opened.events).await.unwrap();
    let error = next(&mut opened.events).await.unwrap_err();
    check_says(
        &error,
        &["after event 1", "max_decoding_message_size", "length too large: found 5242", "limit is: 4194304"],
    );
    assert!(!error.is_head_reached() && !error.is_expected());

    let client = loopback.client().max_decoding_message_size(6 << 20);
    let read = collect(&client, StreamOptions::new().after(1)).await.unwrap();
    assert_eq!(read[0].metadata().len(), 5 << 20);
}

#[tokio::test]
async fn messages_larger_than_the_limit_of_a_go_service() {
    let too_large = "grpc: received message larger than max (5242912 vs. 4194304)";
    let events =
        stream_func(
            move |_| async move { Err::<Response<stream::Empty<_>>, _>(Status::resource_exhausted(too_large)) },
        );
    let error = events.open(StreamOptions::new()).await.unwrap_err();
    check_says(&error, &["max_decoding_message_size", too_large]);
    let busy = stream_func(|_| async { Err::<Response<stream::Empty<_>>, _>(Status::resource_exhausted("quota")) });
    let text = chain(&busy.open(StreamOptions::new()).await.unwrap_err());
    assert!(!text.contains("max_decoding_message_size"), "{text}");
}

/// The error that a client makes of an event.
async fn reading(event: reflexpb::Event) -> Result<Event, Error> {
    let events = stream_func(move |_| {
        let items = stream::iter([Ok(event.clone())]);
        async move { Ok(Response::new(items)) }
    });
    next(&mut events.open(StreamOptions::new()).await.unwrap().events).await
}

fn message() -> reflexpb::Event {
    let timestamp = Some(prost_types::Timestamp::default());
    reflexpb::Event { id: "7".to_owned(), foreign_id: "order-12".to_owned(), timestamp, ..Default::default() }
}

#[tokio::test]
async fn events_that_are_none() {
    let error = reading(reflexpb::Event { id: String::new(), ..message() }).await.unwrap_err();
    check_says(&error, &["order-12", "no id"]);
    let error = reading(reflexpb::Event { timestamp: None, ..message() }).await.unwrap_err();
    check_says(&error, &["event 7", "no timestamp"]);
    for (seconds, nanos) in [(253_402_300_800, 0), (i64::MAX, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
        let timestamp = Some(prost_types::Timestamp { seconds, nanos });
        let error = reading(reflexpb::Event { timestamp, ..message() }).await.unwrap_err();
        check_says(&error, &["event 7", &format!("{seconds} s and {nanos} ns")]);
        assert!(error.is_invalid());
    }
}

#[tokio::test]
async fn unknown_types_are_types() {
    for number in [i32::MIN, -1, 0, 1, i32::MAX] {
        let event = reading(reflexpb::Event { r#type: number, ..message() }).await.unwrap();
        assert_eq!(event.event_type(), number.into());
    }
}

#[tokio::test]
async fn a_timestamp_that_cannot_be_sent() {
    let year_10_000 = DateTime::from_timestamp(253_402_300_800, 0).unwrap();
    let events = one_event();
    events.append(NewEvent::new("order-13", 1).timestamp(year_10_000));
    let mut opened = Loopback::of(events).await.client().open(StreamOptions::new()).await.unwrap();
    next(&mut opened.events).await.unwrap();
    let error = next(&mut opened.events).await.unwrap_err();
    check_says(&error, &["at event 2 (foreign id `order-13`)", "+10000-01-01", "years 1 to 9999"]);
}

#[tokio::test]
async fn a_position_that_is_no_cursor() {
    for position in [b"".as_slice(), b"\xff"] {
        let events = stream_func(move |_| async move {
            let mut response = Response::new(stream::pending());
            response.metadata_mut().insert_bin("reflex-position-bin", MetadataValue::from_bytes(position));
            Ok(response)
        });
        let error = events.open(StreamOptions::new().from_head()).await.unwrap_err();
        check_says(&error, &["reflex-position-bin"]);
        assert!(events.open(StreamOptions::new()).await.is_ok(), "nobody asked for it");
    }
}

#[tokio::test]
async fn a_position_of_any_text_comes_over() {
    struct AtHead;

    impl StreamFunc for AtHead {
        type Stream = stream::Pending<Result<Event, Error>>;

        async fn open(&self, _options: StreamOptions) -> Result<reflex_core::Opened<Self::Stream>, Error> {
            Ok(reflex_core::Opened::new(stream::pending()).at("clé|\n1"))
        }
    }

    let opened = Loopback::of(AtHead).await.client().open(StreamOptions::new().from_head()).await.unwrap();
    assert_eq!(opened.position, Some(Cursor::from("clé|\n1")));
}

#[tokio::test]
async fn an_event_of_a_source_without_integers() {
    let event = Event::from(EventParts {
        id: "1526919030474-55".into(),
        event_type: 1.into(),
        foreign_id: "",
        timestamp: DateTime::default(),
        metadata: b"\0",
        trace: b"\xff",
    });
    let source = {
        let event = event.clone();
        move |_| {
            let items = stream::iter([Ok::<Event, Error>(event.clone())]);
            async move { Ok(items) }
        }
    };
    let mut opened = Loopback::of(source).await.client().open(StreamOptions::new()).await.unwrap();
    assert_eq!(next(&mut opened.events).await.unwrap(), event);
}
