use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::timeout;

use crate::error::{Problem, ends_connection};

/// One connection that many callers share, made when it is needed and again after it broke.
pub(crate) struct Link {
    client: Client,
    deadline: Duration,
    slot: Mutex<Slot>,
    /// Held by the one caller that connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// How many connections there were, so that only the one that broke is given up.
    generation: u64,
}

/// Why a call of Redis failed.
pub(crate) enum Failed {
    Redis(RedisError),
    Deadline(Duration),
}

impl Link {
    pub(crate) fn new(client: &Client, deadline: Duration) -> Self {
        Self { client: client.clone(), deadline, slot: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    /// Runs a command, which has to be answered by the deadline, connecting included.
    pub(crate) async fn call<T, Fut>(&self, command: impl FnOnce(MultiplexedConnection) -> Fut) -> Result<T, Failed>
    where
        Fut: Future<Output = RedisResult<T>>,
    {
        let mut used = None;
        let answer = timeout(self.deadline, async {
            let (connection, generation) = self.connection().await?;
            used = Some(generation);
            command(connection).await
        });
        let failed = match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if !ends_connection(&error) => return Err(Failed::Redis(error)),
            Ok(Err(error)) => Failed::Redis(error),
            // A connection that fell silent may stay so for a quarter of an hour before the system gives it up.
            Err(_) => Failed::Deadline(self.deadline),
        };
        if let Some(generation) = used {
            self.give_up(generation);
        }
        Err(failed)
    }

    async fn connection(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        if let Some(found) = self.slot().get() {
            return Ok(found);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(found) = self.slot().get() {
            return Ok(found);
        }
        let connection = connect(&self.client, self.deadline).await?;
        let mut slot = self.slot();
        slot.generation += 1;
        slot.connection = Some(connection.clone());
        Ok((connection, slot.generation))
    }

    fn give_up(&self, generation: u64) {
        let mut slot = self.slot();
        if slot.generation == generation {
            slot.connection = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn get(&self) -> Option<(MultiplexedConnection, u64)> {
        self.connection.clone().map(|connection| (connection, self.generation))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Failed {
    /// Says what was attempted, with a command on one key that has to be of a type.
    pub(crate) fn on_key(self, attempted: String, wanted: &'static str) -> Problem {
        match self {
            Self::Redis(source) => Problem::on_key(attempted, wanted, source),
            Self::Deadline(deadline) => Problem::Deadline { attempted, deadline },
        }
    }
}

/// Opens a connection whose commands wait for their answers without a limit of their own.
pub(crate) async fn connect(client: &Client, deadline: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(deadline)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}
