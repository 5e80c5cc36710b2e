//! Wake-ups: who commits rings, and the readers of the table look, in this process and in others.
//!
//! Across processes they are hints. Who misses one finds the events by polling.

mod listener;
pub(crate) mod message;
mod polling;
#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reflex_core::{BoxWakeUps, EventsTableMetrics, WakeUps};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

pub(crate) use self::{listener::listen, polling::Polling};
use self::{message::Message, polling::delays};
use crate::{Result, error::Problem};

/// Hints about one table are at least this far apart. Commits in between share the next one.
const BETWEEN_HINTS: Duration = Duration::from_millis(10);
/// A hint that cannot be sent is tried again after at most this long.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What a commit rings.
#[derive(Debug)]
pub(crate) struct Bell {
    /// The shared reader of this table waits for it.
    local: Arc<Notify>,
    /// The sender of hints waits for it.
    due: Notify,
    remote: Option<Remote>,
}

/// How a table is connected with those who opened the same one, in other processes and in this one.
pub(crate) struct Remote {
    wake_ups: BoxWakeUps,
    topic: String,
    /// The table as the user calls it.
    table: String,
    /// A random number, by which we know our own messages.
    me: u64,
    /// So long a message may take, and so long nothing may be heard before we test whether anything arrives.
    patience: Duration,
    /// How many listeners of ours hear what is rung.
    hearing: AtomicUsize,
    metrics: EventsTableMetrics,
}

impl Bell {
    pub(crate) fn new(local: Arc<Notify>, remote: Option<Remote>) -> Self {
        Self { local, due: Notify::new(), remote }
    }

    /// Wakes the reader of this table, and lets the sender tell the others.
    pub(crate) fn ring(&self) {
        self.local.notify_one();
        self.due.notify_one();
    }

    /// Wakes the reader of this table, and tells the others before it returns.
    pub(crate) async fn ring_through(&self) -> Result<()> {
        self.local.notify_one();
        match &self.remote {
            Some(remote) => remote.send_hint().await,
            None => Ok(()),
        }
    }

    /// Whether hints of others arrive.
    pub(crate) fn hears(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.hearing.load(Ordering::Relaxed) > 0)
    }

    /// Tells others what was rung, for as long as the table is open: the first at once, then many by one hint.
    pub(crate) async fn send_hints(self: Arc<Self>) {
        let Some(remote) = &self.remote else { return };
        loop {
            self.due.notified().await;
            let mut delays = delays(LONGEST_DELAY);
            let mut warned = false;
            while let Err(error) = remote.send_hint().await {
                remote.complain(&error, "cannot wake other processes, which find events by polling", &mut warned);
                sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
            }
            sleep(BETWEEN_HINTS).await;
        }
    }
}

impl Remote {
    pub(crate) fn new(
        wake_ups: BoxWakeUps,
        topic: String,
        table: String,
        patience: Duration,
        metrics: EventsTableMetrics,
    ) -> Self {
        Self { wake_ups, topic, table, me: rand::random(), patience, hearing: AtomicUsize::new(0), metrics }
    }

    async fn send_hint(&self) -> Result<()> {
        let sent = self.send(Message::Hint(self.me)).await;
        let counter = if sent.is_ok() { &self.metrics.wake_ups_sent } else { &self.metrics.wake_ups_failed };
        counter.inc();
        sent
    }

    async fn send(&self, message: Message) -> Result<()> {
        let message = message.to_string();
        self.within("send a wake-up", self.wake_ups.ring(&self.topic, &message)).await
    }

    /// Says what was attempted when it failed or took too long.
    async fn within<T>(&self, what: &str, attempt: impl Future<Output = reflex_core::Result<T>>) -> Result<T> {
        let attempted = || format!("{what} for table `{}`", self.table);
        match timeout(self.patience, attempt).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(Problem::WakeUps { attempted: attempted(), source }.into()),
            Err(_) => Err(Problem::WakeUpsStalled { attempted: attempted(), deadline: self.patience }.into()),
        }
    }

    /// Tells the log what failed, once loudly.
    fn complain(&self, error: &crate::Error, what: &str, warned: &mut bool) {
        let error = error as &dyn StdError;
        if *warned {
            tracing::debug!(table = %self.table, error, "still {what}");
        } else {
            tracing::warn!(table = %self.table, error, "{what}");
        }
        *warned = true;
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("topic", &self.topic).field("me", &self.me).finish_non_exhaustive()
    }
}
