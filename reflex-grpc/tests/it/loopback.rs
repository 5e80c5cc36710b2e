//! A server on a free loopback port, and clients of it.

use std::{net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use reflex_core::{BoxEventStream, Error, Event, StreamFunc};
use reflex_grpc::{
    Server,
    reflexpb::{
        reflex_client::ReflexClient,
        reflex_server::{Reflex, ReflexServer},
    },
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tonic::transport::{Channel, Endpoint, Server as Transport, server::TcpIncoming};

/// How long anything may take that is to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running server; dropped, it accepts no more connections.
#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) address: SocketAddr,
    _task: JoinSet<()>,
}

impl Loopback {
    /// Serves the ready-made service over a source.
    pub(crate) async fn of<S>(source: S) -> Self
    where
        S: StreamFunc<Stream: 'static> + 'static,
    {
        Self::serve(Server::new().service(source)).await
    }

    pub(crate) async fn serve<R: Reflex>(service: ReflexServer<R>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, service)
    }

    pub(crate) fn on<R: Reflex>(listener: TcpListener, service: ReflexServer<R>) -> Self {
        let address = listener.local_addr().unwrap();
        let serving = Transport::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        let mut task = JoinSet::new();
        task.spawn(async move { serving.await.unwrap() });
        Self { address, _task: task }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(self.address)
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> ReflexClient<Channel> {
        ReflexClient::new(self.endpoint().connect_lazy())
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::try_from(format!("http://{address}")).unwrap()
}

/// The next item of a stream that has one to come.
pub(crate) async fn next(events: &mut BoxEventStream) -> Result<Event, Error> {
    let item = timeout(DEADLINE, events.next()).await.expect("the stream has a next item");
    item.expect("the stream goes on")
}

/// An error with its causes, as a program would print it.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
