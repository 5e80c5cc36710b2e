//! Streams of events over gRPC, understood by services that use luno/reflex for Go.
//!
//! A service lets others follow its events; they keep cursors of their own.
//!
//! ```
//! use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
//! use reflex_grpc::{Server, reflexpb::reflex_client::ReflexClient};
//! use tonic::transport::{Endpoint, Server as Transport, server::TcpIncoming};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
//! let orders = MemoryEvents::new(); // or an events table
//! orders.append(NewEvent::new("order-12", 1));
//! let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
//! let address = format!("http://{}", incoming.local_addr()?);
//! let service = Server::new().service(orders);
//! tokio::spawn(Transport::builder().add_service(service).serve_with_incoming(incoming));
//!
//! // In another process:
//! let orders = ReflexClient::new(Endpoint::try_from(address)?.connect_lazy());
//! let bill = consumer_fn("bill", |event: Event| async move { Ok(assert_eq!(event.foreign_id(), "order-12")) });
//! let Err(end) = run(&mut Spec::new(orders, MemoryCursors::new(), bill).to_head()).await;
//! assert!(end.is_head_reached());
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Main types
//!
//! - [`Server`] answers calls with the events of any [`StreamFunc`](reflex_core::StreamFunc): those of the ready-made
//!   service `reflexpb.Reflex`, or of any method of yours with the shape `StreamRequest -> stream Event`. It stops them all
//!   gracefully.
//! - [`stream_func`] makes a source of any generated call of that shape. A
//!   [`ReflexClient`](reflexpb::reflex_client::ReflexClient) is a source by itself.
//! - [`reflexpb`] has the messages and the ready-made service.
//!
//! # Guarantees
//!
//! - *Nothing is lost.* The server's source has pinned the start when `open` returns. A stream that breaks ends with an
//!   error; running again goes on after the stored cursor.
//! - *Bounded.* Nothing is buffered here. HTTP/2's flow control holds the server back when the client is slow: by default
//!   at most 2 MiB of events and what fits into the buffers of the connection are on their way. A small event is some 50 bytes
//!   long; `initial_stream_window_size` of the channel makes it less.
//! - *No orphans.* A stream that is dropped on one side, or whose connection closes, is dropped on the other, together with
//!   the stream of the source behind it. Nothing is spawned.
//!
//! # How streams end
//!
//! | end | status on the wire | the client's error |
//! |---|---|---|
//! | [`Server::stop`] | `Unavailable`, marked | `is_stopped` |
//! | head reached | `OutOfRange`, marked | `is_head_reached` |
//! | cancelled | `Cancelled` | `is_cancelled`, expected |
//! | deadline | `DeadlineExceeded` | `is_deadline_exceeded`, expected |
//! | the request cannot be used: a bad cursor, a bad lag | `InvalidArgument` | `is_invalid` |
//! | anything else | `Unknown`, with the causes in its message | none; its source is an [`Error`] with the code |
//! | connection lost or refused | none | none; not expected |
//!
//! *Marked* means: with the message, and in the details the error code, by which luno/reflex knows the error. A status with
//! these marks is understood whatever its code is, because Go services send `Unknown`. What went wrong in a source is told to
//! the client, so a stream should not be open to strangers.
//!
//! # From head
//!
//! A client that starts at the head is told the position that was pinned, in the response header
//! `reflex-position-bin`, and [`run`](reflex_core::run) stores it at once. Servers written in Go do not send it.
//! They also answer only with their first event, so opening one of their streams waits for that, and a run that starts at
//! their head and breaks before its first event starts at the new head.
//!
//! # TLS, authentication, limits
//!
//! They are those of the channel and of the server that you build with tonic:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use reflex_core::MemoryEvents;
//! use reflex_grpc::{Server, reflexpb::reflex_client::ReflexClient};
//! use tonic::{Request, Status, service::InterceptorLayer, transport::{Endpoint, Server as Transport}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::from_static("http://orders:50051") // `.tls_config(..)` with tonic's feature `tls-ring`
//!     .http2_keep_alive_interval(Duration::from_secs(20)) // notices a peer that vanished
//!     .keep_alive_while_idle(true)
//!     .initial_stream_window_size(64 * 1024); // how much may be on its way
//! let authorize = |mut request: Request<()>| {
//!     request.metadata_mut().insert("authorization", "Bearer some-secret".parse().map_err(|_| Status::internal("no"))?);
//!     Ok(request)
//! };
//! let client = ReflexClient::with_interceptor(endpoint.connect_lazy(), authorize)
//!     .max_decoding_message_size(16 << 20); // events larger than 4 MiB
//! # let _ = client;
//!
//! let streams = Server::new();
//! let service = streams.service(MemoryEvents::new());
//! let check = |request: Request<()>| match request.metadata().get("authorization") {
//!     Some(token) if token == "Bearer some-secret" => Ok(request),
//!     _ => Err(Status::unauthenticated("a token is missing")),
//! };
//! Transport::builder()
//!     .http2_keepalive_interval(Some(Duration::from_secs(20)))
//!     .layer(InterceptorLayer::new(check))
//!     .add_service(service)
//!     .serve_with_shutdown("0.0.0.0:50051".parse()?, async {
//!         let _ = tokio::signal::ctrl_c().await;
//!         streams.stop(); // otherwise tonic waits for streams that never end
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! A timeout of the channel (`Endpoint::timeout`) covers the opening of a stream, not its life.
//!
//! # Not here
//!
//! Retries and reconnecting within a run: a lost connection ends the run, and the channel connects again for the next
//! one.

mod client;
mod convert;
mod error;
mod marks;
pub mod reflexpb;
mod server;
mod status;

pub use self::{
    client::{CallStreamFunc, stream_func},
    error::Error,
    server::{EventsService, ResponseStream, Server},
};

/// The text of `proto/reflex.proto`, for build scripts that generate code of their own from it.
pub const PROTO: &str = include_str!("../proto/reflex.proto");

/// The response header that tells the position which was pinned for a stream from the head.
const POSITION: &str = "reflex-position-bin";
