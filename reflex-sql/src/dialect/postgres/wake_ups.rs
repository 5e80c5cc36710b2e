//! Wake-ups by `LISTEN` and `NOTIFY`, on connections of their own.

use std::fmt;

use futures_util::stream;
use reflex_core::{BoxHints, Error, WakeUps};
use sqlx::{
    ConnectOptions, PgConnection, Pool, Postgres,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::Mutex;

use crate::{Result, dialect::EventsSql, error::Problem};

const APPLICATION_NAME: &str = "reflex wake-ups";

pub(super) struct ListenNotify {
    options: PgConnectOptions,
    /// Sends notifications, once there was one to send.
    sender: Mutex<Option<PgConnection>>,
}

impl ListenNotify {
    pub(super) fn new(pool: &Pool<Postgres>) -> Self {
        let options = (*pool.connect_options()).clone().application_name(APPLICATION_NAME);
        Self { options, sender: Mutex::default() }
    }
}

impl WakeUps for ListenNotify {
    async fn listen(&self, topic: &str) -> reflex_core::Result<BoxHints> {
        let listener = listen(&self.options, &channel(topic)).await.map_err(lost("listen"))?;
        let hints = stream::try_unfold(listener, |mut listener| async {
            let notification = listener.try_recv().await.map_err(lost("listen"))?;
            Ok(notification.map(|notification| (notification.payload().to_owned(), listener)))
        });
        Ok(Box::pin(hints))
    }

    async fn ring(&self, topic: &str, message: &str) -> reflex_core::Result<()> {
        let mut sender = self.sender.lock().await;
        // Taken out, so that a connection that fails, or whose answer nobody waits for any more, is closed.
        let conn = match sender.take() {
            Some(conn) => Ok(conn),
            None => self.options.connect().await,
        };
        let mut conn = conn.map_err(lost("notify"))?;
        let notify = sqlx::query("select pg_notify($1, $2)").bind(channel(topic)).bind(message);
        notify.execute(&mut conn).await.map_err(lost("notify"))?;
        *sender = Some(conn);
        Ok(())
    }
}

impl fmt::Debug for ListenNotify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenNotify").finish_non_exhaustive()
    }
}

/// The listener takes its connection from a pool, which must be one of its own: when it is dropped over a connection that does
/// not answer, its place in the pool stays taken until the system gives the connection up.
async fn listen(options: &PgConnectOptions, channel: &str) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let mut listener = PgListener::connect_with(&pool.connect_lazy_with(options.clone())).await?;
    // What is sent before it has connected again is missed, so its end must be seen.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

fn lost(what: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::stream(format!("{what} on Postgres"), source)
}

/// The channel of a topic. Its name may have 63 bytes, and that of a table with its schema and database more.
fn channel(topic: &str) -> String {
    // FNV-1a, because every version of every process has to come to the same name.
    let hash = topic
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("reflex_{hash:016x}")
}

/// The table with its schema and database.
pub(super) async fn topic(conn: &mut PgConnection, sql: &EventsSql) -> Result<String> {
    let database = sqlx::query_scalar("select current_database()::text").fetch_one(conn).await;
    let database: String = database.map_err(Problem::database("look up the name of the database"))?;
    Ok(format!("{database}.{}", sql.home))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_of_a_topic_never_changes() {
        assert_eq!(channel(""), "reflex_cbf29ce484222325");
        assert_eq!(channel("a"), "reflex_af63dc4c8601ec8c");
        assert_eq!(channel("foobar"), "reflex_85944171f73967e8");
    }
}
