//! The in-memory source and stores, and the boxes around them, keep the contracts.

use std::future::ready;

use reflex_core::{
    AttemptStore, BoxCursorStore, BoxStreamFunc, BufferedCursors, CursorStore, DeadLetter, DeadLetterStore,
    HandlerError, MemoryCursors, MemoryDeadLetters, MemoryEvents, NewEvent, Opened, Selection, StreamFunc,
    StreamOptions,
};
use reflex_testing::conformance::{
    CursorCapabilities, DeadLetterCapabilities, DeadLetterHarness, StreamCapabilities, StreamHarness, cursor_store,
    dead_letters, stream_func,
};

/// The events in memory behind a source that is made from them.
struct InMemory<F> {
    events: MemoryEvents,
    source: F,
}

impl<F, S> StreamHarness for InMemory<F>
where
    F: Fn(MemoryEvents) -> S + Send + Sync,
    S: StreamFunc<Stream: 'static> + 'static,
{
    type Source = S;

    async fn source(&self) -> Result<S, HandlerError> {
        Ok((self.source)(self.events.clone()))
    }

    async fn append(&self, event: NewEvent) -> Result<(), HandlerError> {
        self.events.append(event);
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn append_placeholder(&self) -> Result<(), HandlerError> {
        self.append(NewEvent::new(0, 0)).await
    }
}

/// The letters in memory behind a store that is made from them.
struct Letters<F> {
    letters: MemoryDeadLetters,
    store: F,
}

impl<F, S> DeadLetterHarness for Letters<F>
where
    F: Fn(MemoryDeadLetters) -> S + Send + Sync,
    S: DeadLetterStore + AttemptStore + 'static,
{
    type Store = S;

    async fn store(&self) -> Result<S, HandlerError> {
        Ok((self.store)(self.letters.clone()))
    }

    async fn open(&self, consumer: &str) -> Result<Vec<DeadLetter>, HandlerError> {
        Ok(self.letters.open(consumer))
    }

    async fn request(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>, HandlerError> {
        Ok(self.letters.request(consumer, selection)?)
    }

    async fn discard(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>, HandlerError> {
        Ok(self.letters.discard(consumer, selection))
    }
}

async fn check_letters<S>(store: impl Fn(MemoryDeadLetters) -> S + Copy + Send + Sync)
where
    S: DeadLetterStore + AttemptStore + 'static,
{
    let factory = |_case, bound| ready(Ok(Letters { letters: MemoryDeadLetters::bounded(bound), store }));
    dead_letters(factory, DeadLetterCapabilities { leases: false, ..DeadLetterCapabilities::default() }).await;
}

async fn check_stream<S>(source: impl Fn(MemoryEvents) -> S + Copy + Send + Sync, capabilities: StreamCapabilities)
where
    S: StreamFunc<Stream: 'static> + 'static,
{
    stream_func(|_case| ready(Ok(InMemory { events: MemoryEvents::new(), source })), capabilities).await;
}

async fn check_cursors<C>(store: impl Fn(MemoryCursors) -> C + Copy + Send + Sync)
where
    C: CursorStore + 'static,
{
    let factory = |_case| {
        let cursors = MemoryCursors::new();
        ready(Ok(move || ready(Ok(store(cursors.clone())))))
    };
    cursor_store(factory, CursorCapabilities::default()).await;
}

#[tokio::test]
async fn events_in_memory() {
    check_stream(|events| events, StreamCapabilities::default()).await;
}

#[tokio::test]
async fn boxed_stream() {
    check_stream(BoxStreamFunc::new, StreamCapabilities::default()).await;
}

#[tokio::test]
async fn closure_as_a_source() {
    let source = |events: MemoryEvents| {
        move |options: StreamOptions| {
            let events = events.clone();
            async move {
                let Opened { events, .. } = events.open(options).await?;
                Ok(events)
            }
        }
    };
    check_stream(source, StreamCapabilities { position: false, ..StreamCapabilities::default() }).await;
}

#[tokio::test]
async fn cursors_in_memory() {
    check_cursors(|cursors| cursors).await;
}

#[tokio::test]
async fn boxed_cursors() {
    check_cursors(BoxCursorStore::new).await;
}

#[tokio::test]
async fn shared_cursors() {
    check_cursors(std::sync::Arc::new).await;
}

#[tokio::test]
async fn buffered_cursors() {
    check_cursors(BufferedCursors::new).await;
}

#[tokio::test]
async fn buffered_cursors_that_write_each() {
    check_cursors(|cursors| BufferedCursors::new(cursors).max_sets(1)).await;
}

#[tokio::test]
async fn dead_letters_in_memory() {
    check_letters(|letters| letters).await;
}

#[tokio::test]
async fn shared_dead_letters() {
    check_letters(std::sync::Arc::new).await;
}
