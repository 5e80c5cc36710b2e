use std::{fmt, sync::Arc};

use futures_util::{StreamExt, stream};
use redis::{Client, RedisResult, aio::PubSub, cmd};
use reflex_core::{BoxHints, WakeUps};
use tokio::time::timeout;

use crate::{
    error::{Error, Problem, Result},
    link::{Failed, Link},
    options::RedisWakeUpsOptions,
};

/// Wake-ups over Redis pub/sub, for events tables of databases that have none of their own: MySQL, MariaDB and SQLite.
///
/// All processes that share a table use the same Redis and the same prefix. Nothing is stored: Redis passes hints on to who
/// listens, and while it is down, tables are polled. Handles are cheap to clone and share the connection that sends; each
/// listening table has a connection of its own. Neither is made before it is needed.
///
/// A user of Redis that is restricted needs `PUBLISH` and `SUBSCRIBE`, and the channels with the prefix.
///
/// # Examples
///
/// ```no_run
/// use reflex_redis::RedisWakeUps;
///
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let wake_ups = RedisWakeUps::new(&client, "shop:wake-ups:")?;
/// // EventsTableOptions::new("events").wake_ups(wake_ups)
/// # let _ = wake_ups;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedisWakeUps {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    link: Link,
    options: RedisWakeUpsOptions,
}

impl RedisWakeUps {
    /// Makes wake-ups, from options or from a prefix alone. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the prefix is empty, too long, or has control characters in it.
    pub fn new(client: &Client, options: impl Into<RedisWakeUpsOptions>) -> Result<Self> {
        let options = options.into();
        options.validate()?;
        let link = Link::new(client, options.deadline);
        Ok(Self { inner: Arc::new(Inner { client: client.clone(), link, options }) })
    }

    fn channel(&self, topic: &str) -> String {
        format!("{}{topic}", self.inner.options.prefix)
    }

    async fn subscribe(&self, channel: &str) -> Result<PubSub> {
        let attempted = || format!("subscribe to channel `{channel}`");
        let deadline = self.inner.options.deadline;
        match timeout(deadline, subscribe(&self.inner.client, channel)).await {
            Ok(Ok(subscribed)) => Ok(subscribed),
            Ok(Err(error)) => Err(Problem::redis(attempted(), error).into()),
            Err(_) => Err(Problem::Deadline { attempted: attempted(), deadline }.into()),
        }
    }

    async fn publish(&self, channel: &str, message: &str) -> Result<()> {
        let mut command = cmd("PUBLISH");
        command.arg(channel).arg(message);
        let answer = self.inner.link.call(async move |mut connection| command.query_async(&mut connection).await);
        let _receivers: i64 = answer.await.map_err(|failed| match failed {
            Failed::Redis(error) => Problem::redis(format!("publish to channel `{channel}`"), error),
            Failed::Deadline(deadline) => {
                Problem::Deadline { attempted: format!("publish to channel `{channel}`"), deadline }
            }
        })?;
        Ok(())
    }
}

async fn subscribe(client: &Client, channel: &str) -> RedisResult<PubSub> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

impl WakeUps for RedisWakeUps {
    async fn listen(&self, topic: &str) -> reflex_core::Result<BoxHints> {
        let subscribed = self.subscribe(&self.channel(topic)).await.map_err(|error| into_core(error, topic))?;
        let (sink, messages) = subscribed.split();
        let messages = messages.map(|message| message.get_payload::<String>().unwrap_or_default());
        // The sink is kept because without it the client takes no more than one message out of what arrives together.
        let hints = stream::unfold((sink, messages), async |(sink, mut messages)| {
            let message = messages.next().await?;
            Some((Ok(message), (sink, messages)))
        });
        Ok(Box::pin(hints))
    }

    async fn ring(&self, topic: &str, message: &str) -> reflex_core::Result<()> {
        self.publish(&self.channel(topic), message).await.map_err(|error| into_core(error, topic))
    }
}

fn into_core(error: Error, topic: &str) -> reflex_core::Error {
    reflex_core::Error::stream(format!("wake-ups of topic `{topic}` over Redis"), error)
}

impl fmt::Debug for RedisWakeUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisWakeUps").field("options", &self.inner.options).finish_non_exhaustive()
    }
}
