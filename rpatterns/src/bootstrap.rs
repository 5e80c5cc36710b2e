use reflex_core::{Opened, Result, Start, StreamFunc, StreamOptions};

/// Lets a consumer that has no cursor yet start at the head of the stream, for one that is to pass over what happened before
/// it existed. Once there is a cursor, the stream is opened after it, as without this.
///
/// The position of the head is stored as the cursor before the first event, if the source tells it, as events tables do. So
/// nothing is missed by a restart before the first event. With a source that does not tell it, such a restart starts at the
/// head again.
///
/// It differs from [`Spec::from_head`](reflex_core::Spec::from_head), which starts every run at the head.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::bootstrap;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
/// let welcome = consumer_fn("welcome", |_event: Event| async { unreachable!("it is from before") });
/// let mut spec = Spec::new(bootstrap(events), MemoryCursors::new(), welcome).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn bootstrap<S: StreamFunc>(stream: S) -> Bootstrap<S> {
    Bootstrap { stream }
}

/// A source that starts at the head instead of the beginning, made by [`bootstrap`].
#[derive(Clone, Debug)]
pub struct Bootstrap<S> {
    stream: S,
}

impl<S: StreamFunc> StreamFunc for Bootstrap<S> {
    type Stream = S::Stream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<S::Stream>> {
        let options = match options.start() {
            Start::Beginning => options.from_head(),
            Start::After(_) | Start::Head => options,
        };
        self.stream.open(options).await
    }
}
