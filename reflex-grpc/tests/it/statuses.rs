//! How streams end, from Rust to Rust, and between Rust and Go.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use reflex_core::{Error, Event, MemoryCursors, MemoryEvents, Spec, StreamFunc, StreamOptions, run};
use reflex_grpc::{
    Server,
    reflexpb::{StreamRequest, reflex_client::ReflexClient},
    stream_func,
};
use reflex_testing::ScriptedConsumer;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use crate::loopback::{DEADLINE, Loopback, chain, next};

/// The error that a client gets if the source fails to open, and the one if its stream fails.
async fn over_the_wire(make: impl Fn() -> Error + Clone + Send + Sync + 'static) -> [Error; 2] {
    let fails = make.clone();
    let closed = Loopback::of(move |_| {
        let error = fails();
        async move { Err::<stream::Empty<Result<Event, Error>>, Error>(error) }
    });
    let broken = Loopback::of(move |_| {
        let error = make();
        async move { Ok(stream::iter([Err::<Event, Error>(error)])) }
    });
    let opening = closed.await.client().open(StreamOptions::new()).await.unwrap_err();
    let mut opened = broken.await.client().open(StreamOptions::new()).await.unwrap();
    [opening, next(&mut opened.events).await.unwrap_err()]
}

#[tokio::test]
async fn predicates_hold_on_the_other_side() {
    type Check = (fn() -> Error, fn(&Error) -> bool);
    let checks: [Check; 6] = [
        (Error::stopped, |error| error.is_stopped() && error.is_expected()),
        (Error::head_reached, |error| error.is_head_reached() && !error.is_expected()),
        (Error::cancelled, |error| error.is_cancelled() && error.is_expected()),
        (Error::deadline_exceeded, |error| error.is_deadline_exceeded() && error.is_expected()),
        (
            || Error::invalid("cursor `x` is none"),
            |error| error.is_invalid() && chain(error).contains("cursor `x` is none"),
        ),
        (
            || Error::stream("read `orders`", std::io::Error::other("the disk is gone")),
            |error| {
                let told = chain(error).ends_with("gRPC status Unknown: read `orders`: the disk is gone");
                told && !(error.is_expected() || error.is_invalid() || error.is_head_reached())
            },
        ),
    ];
    for (make, check) in checks {
        for error in over_the_wire(make).await {
            assert!(check(&error), "{:?} became {error:?}", make());
        }
    }
}

#[tokio::test]
async fn what_is_expected_of_a_cause_is_expected_on_the_other_side() {
    for error in over_the_wire(|| Error::stream("read `orders`", Error::stopped())).await {
        assert!(error.is_expected(), "{error:?}");
    }
    for error in over_the_wire(|| Error::stream("read `orders`", Error::head_reached())).await {
        assert!(!error.is_head_reached() && !error.is_expected(), "the end of another stream: {error:?}");
    }
}

#[tokio::test]
async fn a_source_that_ends_without_an_error_ends_so_on_the_other_side() {
    let nothing = |_| async { Ok(stream::empty::<Result<Event, Error>>()) };
    let loopback = Loopback::of(nothing).await;
    let mut spec = Spec::new(loopback.client(), MemoryCursors::new(), ScriptedConsumer::new("bill"));
    let Err(end) = timeout(DEADLINE, run(&mut spec)).await.unwrap();
    assert!(end.is_ended(), "{end:?}");
}

#[tokio::test]
async fn a_very_long_message_is_cut() {
    for error in over_the_wire(|| Error::stream("é".repeat(100_000), "cause")).await {
        let text = chain(&error);
        assert!(text.contains("gRPC status Unknown: é") && text.len() < 5_000, "{} bytes", text.len());
    }
}

/// The error that a client makes of a status, at the opening of a stream and in it.
async fn from_go(status: impl Fn() -> Status) -> [Error; 2] {
    let refused = status();
    let closed = stream_func(move |_| {
        let refused = refused.clone();
        async move { Err::<Response<stream::Empty<_>>, Status>(refused) }
    });
    let broken = status();
    let broken = stream_func(move |_| {
        let items = stream::iter([Err(broken.clone())]);
        async move { Ok(Response::new(items)) }
    });
    let opening = closed.open(StreamOptions::new()).await.unwrap_err();
    let mut opened = broken.open(StreamOptions::new()).await.unwrap();
    [opening, next(&mut opened.events).await.unwrap_err()]
}

/// A field of protobuf that is as long as it says.
fn field(tag: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let (low, high) = (content.len() % 128, content.len() / 128);
    let mut bytes = vec![tag << 3 | 2];
    bytes.extend(if high == 0 { vec![low as u8] } else { vec![low as u8 | 0x80, high as u8] });
    [bytes, content.to_vec()].concat()
}

/// The details of a status, as `grpc-status-details-bin` carries them: a `google.rpc.Status`.
fn details(code: u8, message: &str, details: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = [vec![0x08, code], field(2, message)].concat();
    for (name, value) in details {
        let url = field(1, format!("type.googleapis.com/jettisonpb.{name}"));
        bytes.extend(field(3, [url, field(2, value)].concat()));
    }
    bytes
}

/// `jettisonpb.Hop` with errors of these messages and codes, the outermost first.
fn hop(errors: &[(&str, &str)]) -> Vec<u8> {
    let errors = errors.iter().flat_map(|(message, code)| field(2, [field(1, message), field(4, code)].concat()));
    errors.collect()
}

const STOPPED: (&str, &str) = ("the event stream has been stopped", "ERR_09290f5944cb8671");
const HEAD: (&str, &str) = ("the event stream has reached the current head", "ERR_b4b155d2a91cfcd0");

fn wrapped((message, code): (&str, &str), inner: &[u8]) -> Vec<u8> {
    [field(1, message), inner.to_vec(), field(7, code)].concat()
}

#[tokio::test]
async fn marks_of_go_services_are_understood() {
    let old = |mark: (&'static str, &'static str)| {
        move || {
            let hop = hop(&[("recv error 2", ""), mark]);
            let details = details(2, "recv error 2", &[("Hop", hop)]);
            Status::with_details(Code::Unknown, "recv error 2", details.into())
        }
    };
    let recent = |mark: (&'static str, &'static str)| {
        move || {
            let wrapped = wrapped(("recv error 2", ""), &field(4, wrapped(mark, b"")));
            let details = details(2, "recv error 2", &[("WrappedError", wrapped)]);
            Status::with_details(Code::Unknown, "recv error 2", details.into())
        }
    };
    let joined = || {
        let wrapped = wrapped(("", ""), &field(3, wrapped(STOPPED, b"")));
        Status::with_details(Code::Unknown, "", details(2, "", &[("WrappedError", wrapped)]).into())
    };
    let plain = |mark: (&'static str, &'static str)| move || Status::unknown(format!("recv error 2: {}", mark.0));
    let stopped = [from_go(old(STOPPED)).await, from_go(recent(STOPPED)).await, from_go(plain(STOPPED)).await];
    for error in stopped.into_iter().flatten().chain(from_go(joined).await) {
        assert!(error.is_stopped(), "{error:?}");
    }
    let head = [from_go(old(HEAD)).await, from_go(recent(HEAD)).await, from_go(plain(HEAD)).await];
    for error in head.into_iter().flatten() {
        assert!(error.is_head_reached(), "{error:?}");
    }
}

/// hyper calls a request cancelled whose connection breaks before it is sent.
#[tokio::test]
async fn a_lost_connection_is_not_a_cancelled_call() {
    let lost = || {
        let mut status = Status::cancelled("operation was canceled");
        status.set_source(Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        status
    };
    for error in from_go(lost).await {
        assert!(!error.is_cancelled() && !error.is_expected(), "{error:?}");
        assert!(chain(&error).ends_with("operation was canceled: connection reset"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn context_errors_of_go_services_are_expected_and_others_are_not() {
    for error in from_go(|| Status::cancelled("context canceled")).await {
        assert!(error.is_cancelled() && error.is_expected(), "{error:?}");
    }
    for error in from_go(|| Status::deadline_exceeded("context deadline exceeded")).await {
        assert!(error.is_deadline_exceeded() && error.is_expected(), "{error:?}");
    }
    let other = |details: Vec<u8>| move || Status::with_details(Code::Unavailable, "closing", details.clone().into());
    let hop = details(14, "closing", &[("Hop", hop(&[("closing", "ERR_1")]))]);
    for details in [hop, b"\xff not protobuf".to_vec(), Vec::new()] {
        for error in from_go(other(details)).await {
            assert!(!error.is_expected() && !error.is_head_reached() && !error.is_invalid(), "{error:?}");
            let source = std::error::Error::source(&error).unwrap().downcast_ref::<reflex_grpc::Error>().unwrap();
            assert_eq!((source.code(), source.message()), (Code::Unavailable, "closing"));
        }
    }
    for error in from_go(|| Status::out_of_range("page 7")).await {
        assert!(!error.is_head_reached(), "out of range alone is not the head: {error:?}");
    }
}

/// What Go services look at: the code in the details, of either kind, or the words.
#[tokio::test]
async fn our_statuses_are_what_go_services_look_for() {
    let server = Server::new();
    let to_head = Request::new(StreamRequest::try_from(&StreamOptions::new().to_head()).unwrap());
    let mut response = server.stream(&MemoryEvents::new(), to_head).await.unwrap().into_inner();
    let head = response.next().await.unwrap().unwrap_err();
    check_marked(&head, Code::OutOfRange, 11, HEAD);

    server.stop();
    let refused = server.stream(&MemoryEvents::new(), Request::new(StreamRequest::default())).await;
    check_marked(&refused.err().unwrap(), Code::Unavailable, 14, STOPPED);

    let cancelled = |_| async { Err::<stream::Empty<Result<Event, Error>>, Error>(Error::cancelled()) };
    let status = Server::new().stream(&cancelled, Request::new(StreamRequest::default())).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "context canceled"));
    let late = |_| async { Err::<stream::Empty<Result<Event, Error>>, Error>(Error::deadline_exceeded()) };
    let status = Server::new().stream(&late, Request::new(StreamRequest::default())).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
}

#[track_caller]
fn check_marked(status: &Status, code: Code, number: u8, mark: (&str, &str)) {
    assert_eq!((status.code(), status.message()), (code, mark.0));
    let expected = details(number, mark.0, &[("Hop", hop(&[mark])), ("WrappedError", wrapped(mark, b""))]);
    assert_eq!(status.details(), expected);
}

#[tokio::test]
async fn a_timeout_of_the_channel_is_a_deadline() {
    let never = |_| async {
        std::future::pending::<()>().await;
        Ok(stream::empty::<Result<Event, Error>>())
    };
    let loopback = Loopback::of(never).await;
    let channel = loopback.endpoint().timeout(Duration::from_millis(10)).connect_lazy();
    let client = ReflexClient::new(channel);
    let opened = timeout(DEADLINE, client.open(StreamOptions::new())).await.unwrap();
    let error = opened.unwrap_err();
    assert!(error.is_deadline_exceeded() && error.is_expected(), "{error:?}");
}
