use std::{fmt, pin::pin};

use async_stream::stream;
use futures_util::{Stream, StreamExt};
use reflex_core::{BoxEventStream, Cursor, Error, Event, Opened, Result, Start, StreamFunc, StreamOptions};
use tonic::{
    Request, Response, Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
    metadata::MetadataMap,
};

use crate::{
    POSITION,
    reflexpb::{self, StreamRequest, reflex_client::ReflexClient},
    status::from_status,
};

/// Makes a source of a gRPC call that streams events: of any method with the shape `StreamRequest -> stream Event`.
///
/// `call` is called for each stream that is opened. There it may set a deadline, metadata, or choose the server.
///
/// # Examples
///
/// ```
/// use reflex_grpc::{reflexpb::reflex_client::ReflexClient, stream_func};
/// use tonic::transport::Endpoint;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let client = ReflexClient::new(Endpoint::from_static("http://orders:50051").connect_lazy());
/// let orders = stream_func(move |mut request| {
///     let mut client = client.clone(); // or the generated client of a service of your own
///     request.metadata_mut().insert("tenant", tonic::metadata::MetadataValue::from_static("north"));
///     async move { client.stream(request).await }
/// });
/// # let _ = orders;
/// # });
/// ```
pub fn stream_func<F, Fut, S>(call: F) -> CallStreamFunc<F>
where
    F: Fn(Request<StreamRequest>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response<S>, Status>> + Send,
    S: Stream<Item = Result<reflexpb::Event, Status>> + Send + 'static,
{
    CallStreamFunc(call)
}

/// A source whose events come from a gRPC call, made by [`stream_func`].
///
/// Opening fails if the server cannot be reached, has no such method, or refuses the request; the error's source is an
/// [`Error`](crate::Error) with the status. Dropping a stream cancels the call.
#[derive(Clone, Copy)]
pub struct CallStreamFunc<F>(F);

impl<F> fmt::Debug for CallStreamFunc<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStreamFunc").finish_non_exhaustive()
    }
}

impl<F, Fut, S> StreamFunc for CallStreamFunc<F>
where
    F: Fn(Request<StreamRequest>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response<S>, Status>> + Send,
    S: Stream<Item = Result<reflexpb::Event, Status>> + Send + 'static,
{
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        let request = Request::new(StreamRequest::try_from(&options)?);
        let response = (self.0)(request).await.map_err(|status| from_status(&opening(&options), status))?;
        let position = match options.start() {
            Start::Head => pinned(response.metadata())?,
            Start::Beginning | Start::After(_) => None,
        };
        let last = position.clone().or_else(|| options.start_after().cloned());
        let opened = Opened::new(events(response.into_inner(), last));
        Ok(match position {
            Some(position) => opened.at(position),
            None => opened,
        })
    }
}

/// The ready-made client is a source by itself.
impl<T> StreamFunc for ReflexClient<T>
where
    T: GrpcService<Body, Future: Send> + Clone + Send + Sync,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<BoxEventStream>> {
        let call = |request| {
            let mut client = self.clone();
            async move { client.stream(request).await }
        };
        stream_func(call).open(options).await
    }
}

/// The events of a response, after the event `last`.
fn events<S>(response: S, mut last: Option<Cursor>) -> BoxEventStream
where
    S: Stream<Item = Result<reflexpb::Event, Status>> + Send + 'static,
{
    Box::pin(stream! {
        let mut response = pin!(response);
        while let Some(item) = response.next().await {
            match item.map_err(|status| from_status(&reading(last.as_ref()), status)).and_then(Event::try_from) {
                Ok(event) => {
                    last = Some(event.id().clone());
                    yield Ok(event);
                }
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    })
}

fn pinned(metadata: &MetadataMap) -> Result<Option<Cursor>> {
    let Some(value) = metadata.get_bin(POSITION) else {
        return Ok(None);
    };
    let position = value.to_bytes().ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let position = position.filter(|position| !position.is_empty());
    let position = position.ok_or_else(|| {
        Error::invalid(format!("open a stream of events over gRPC: the response header `{POSITION}` is not a cursor"))
    })?;
    Ok(Some(position.into()))
}

fn opening(options: &StreamOptions) -> String {
    match options.start() {
        Start::Beginning => "open a stream of events over gRPC from the beginning".to_owned(),
        Start::After(cursor) => format!("open a stream of events over gRPC after cursor `{cursor}`"),
        Start::Head => "open a stream of events over gRPC from the head".to_owned(),
    }
}

fn reading(last: Option<&Cursor>) -> String {
    match last {
        Some(cursor) => format!("read events over gRPC after event {cursor}"),
        None => "read events over gRPC".to_owned(),
    }
}
