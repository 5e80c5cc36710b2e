use std::{fmt, pin::Pin, sync::Arc};

use futures_core::Stream;

use crate::Result;

/// A boxed stream of what was rung.
pub type BoxHints = Pin<Box<dyn Stream<Item = Result<String>> + Send + 'static>>;

/// A way to tell other processes that there may be something to read: `LISTEN` and `NOTIFY` of Postgres, pub/sub of Redis.
///
/// What goes through it are hints. One that is lost costs time and never an event, because who waits for hints looks by itself
/// now and then. So an implementation stores nothing, tries nothing again, and does not connect again by itself: the source
/// that uses it does all this, and tests by a message to itself whether messages still arrive.
///
/// Obligations of an implementer:
///
/// - When `listen` returns, every message that is rung from then on arrives, as long as the connection lasts.
/// - When the connection is lost the stream ends, with an error or without. It does not connect again: what was rung in
///   between would be missed, and nobody would know.
/// - A topic is heard by all who listen to it in any process, also by who rang, and by nobody else.
/// - A topic is any text; a message is up to 64 printable ASCII characters and is carried as it is.
/// - Neither method waits for ever, and dropping a stream ends its connection.
pub trait WakeUps: Send + Sync {
    /// Listens to a topic, over a connection of its own.
    ///
    /// # Errors
    ///
    /// If it cannot connect, or may not listen.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    fn listen(&self, topic: &str) -> impl Future<Output = Result<BoxHints>> + Send;

    /// Sends a message to all who listen to a topic, whether there are any or not.
    ///
    /// # Errors
    ///
    /// If it cannot connect, or the message is not taken.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the message was sent or not.
    fn ring(&self, topic: &str, message: &str) -> impl Future<Output = Result<()>> + Send;
}

impl<W: WakeUps> WakeUps for Arc<W> {
    async fn listen(&self, topic: &str) -> Result<BoxHints> {
        W::listen(self, topic).await
    }

    async fn ring(&self, topic: &str, message: &str) -> Result<()> {
        W::ring(self, topic, message).await
    }
}

/// [`WakeUps`] of any kind. Clones share what is inside.
#[derive(Clone)]
pub struct BoxWakeUps(Arc<dyn ErasedWakeUps>);

impl BoxWakeUps {
    /// Boxes wake-ups.
    pub fn new(wake_ups: impl WakeUps + 'static) -> Self {
        Self(Arc::new(wake_ups))
    }
}

impl WakeUps for BoxWakeUps {
    async fn listen(&self, topic: &str) -> Result<BoxHints> {
        self.0.listen_boxed(topic).await
    }

    async fn ring(&self, topic: &str, message: &str) -> Result<()> {
        self.0.ring_boxed(topic, message).await
    }
}

impl fmt::Debug for BoxWakeUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxWakeUps").finish_non_exhaustive()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

trait ErasedWakeUps: Send + Sync {
    fn listen_boxed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, BoxHints>;
    fn ring_boxed<'a>(&'a self, topic: &'a str, message: &'a str) -> BoxFuture<'a, ()>;
}

impl<W: WakeUps> ErasedWakeUps for W {
    fn listen_boxed<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, BoxHints> {
        Box::pin(self.listen(topic))
    }

    fn ring_boxed<'a>(&'a self, topic: &'a str, message: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.ring(topic, message))
    }
}
