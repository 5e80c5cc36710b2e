use std::{
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use async_stream::stream;
use futures_util::{Stream, StreamExt};
use reflex_core::{Error, Event, Opened, Result, StreamFunc, StreamOptions};
use tokio::{select, sync::watch};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use crate::{
    POSITION,
    reflexpb::{
        self, StreamRequest,
        reflex_server::{Reflex, ReflexServer},
    },
    status::to_status,
};

/// The stream of a response.
pub type ResponseStream = Pin<Box<dyn Stream<Item = Result<reflexpb::Event, Status>> + Send>>;

/// Answers gRPC calls with streams of events, and stops them all at once.
///
/// One server may serve any number of methods and sources. Clones are the same server. Dropping it stops nothing.
///
/// # Examples
///
/// In the service of one's own, whose definition has a method `StreamRequest -> stream Event`:
///
/// ```
/// use reflex_core::MemoryEvents;
/// use reflex_grpc::{ResponseStream, Server, reflexpb::{StreamRequest, reflex_server::Reflex}};
/// use tonic::{Request, Response, Status};
///
/// struct Orders {
///     streams: Server,
///     events: MemoryEvents, // or an events table
/// }
///
/// #[tonic::async_trait]
/// impl Reflex for Orders {
///     type StreamStream = ResponseStream;
///
///     async fn stream(&self, request: Request<StreamRequest>) -> Result<Response<ResponseStream>, Status> {
///         self.streams.stream(&self.events, request).await
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    stopped: Arc<watch::Sender<bool>>,
}

impl Default for Server {
    fn default() -> Self {
        Self { stopped: Arc::new(watch::Sender::new(false)) }
    }
}

impl Server {
    /// A server without streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the stream that a request asks for, and answers with it.
    ///
    /// The source has pinned the start when this returns. The lag that the client asks for is waited out here, so the source
    /// need not know it. Events are read from the source as the client takes them; nothing is read ahead. Dropping the
    /// response drops the stream of the source.
    ///
    /// # Errors
    ///
    /// If the request cannot be used, the source does not open, or the server is stopped, with the status that says so: see
    /// [How streams end](crate#how-streams-end).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    pub async fn stream<S>(
        &self,
        source: &S,
        request: Request<StreamRequest>,
    ) -> Result<Response<ResponseStream>, Status>
    where
        S: StreamFunc<Stream: 'static>,
    {
        self.open(source, request.into_inner()).await.map_err(|error| to_status(&error))
    }

    /// The ready-made service `reflexpb.Reflex`, for tonic's `add_service`: streams the events of this source.
    #[must_use]
    pub fn service<S>(&self, source: S) -> ReflexServer<EventsService<S>>
    where
        S: StreamFunc<Stream: 'static> + 'static,
    {
        ReflexServer::new(EventsService { server: self.clone(), source })
    }

    /// Ends all streams, and those opened later, with an error that [`is_stopped`](Error::is_stopped) on the other side.
    ///
    /// Call it when tonic's server begins to shut down: that waits for the open calls, and streams do not end by themselves.
    /// A client receives the end after what is on its way to it. One that takes nothing has no room for it, so its call and
    /// the stream of the source stay until it does or its connection closes: put a limit on the time that a shutdown may take.
    /// Stopping twice is stopping.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    async fn open<S>(&self, source: &S, request: StreamRequest) -> Result<Response<ResponseStream>>
    where
        S: StreamFunc<Stream: 'static>,
    {
        let asked = StreamOptions::try_from(request)?;
        let without_lag = asked.clone().lag(Duration::ZERO);
        let Opened { events, position, .. } = select! {
            biased;
            () = self.until_stopped() => return Err(Error::stopped()),
            opened = source.open(without_lag) => opened?,
        };
        let mut response = Response::new(self.clone().respond(events, asked));
        if let Some(position) = position {
            let position = MetadataValue::from_bytes(position.to_string().as_bytes());
            response.metadata_mut().insert_bin(POSITION, position);
        }
        Ok(response)
    }

    fn respond<S>(self, events: S, asked: StreamOptions) -> ResponseStream
    where
        S: Stream<Item = Result<Event>> + Send + 'static,
    {
        Box::pin(stream! {
            let mut events = pin!(events);
            let mut stopped = pin!(self.until_stopped());
            loop {
                let next = select! {
                    biased;
                    () = stopped.as_mut() => Some(Err(Error::stopped())),
                    next = next(events.as_mut(), &asked) => next,
                };
                match next {
                    Some(Ok(event)) => yield Ok(event),
                    Some(Err(error)) => {
                        yield Err(to_status(&error));
                        return;
                    }
                    None => return,
                }
            }
        })
    }

    async fn until_stopped(&self) {
        let mut stopped = self.stopped.subscribe();
        let waited = stopped.wait_for(|stopped| *stopped).await;
        waited.expect("the server that is borrowed here holds the sender");
    }
}

/// The ready-made service `reflexpb.Reflex` over one source, made by [`Server::service`].
#[derive(Clone)]
pub struct EventsService<S> {
    server: Server,
    source: S,
}

impl<S> fmt::Debug for EventsService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsService").field("server", &self.server).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl<S> Reflex for EventsService<S>
where
    S: StreamFunc<Stream: 'static> + 'static,
{
    type StreamStream = ResponseStream;

    async fn stream(&self, request: Request<StreamRequest>) -> Result<Response<ResponseStream>, Status> {
        self.server.stream(&self.source, request).await
    }
}

/// The next event, once it is as old as the client asks.
async fn next<S>(mut events: Pin<&mut S>, asked: &StreamOptions) -> Option<Result<reflexpb::Event>>
where
    S: Stream<Item = Result<Event>>,
{
    let event = match events.next().await? {
        Ok(event) => event,
        Err(error) => return Some(Err(error)),
    };
    if let Err(end) = asked.hold_back(&event).await {
        return Some(Err(end));
    }
    Some(reflexpb::Event::try_from(&event))
}
