//! The database that a URL names, with a type for each kind.

use std::{error::Error, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use reflex_sql::Notify;
use sqlx::{
    ConnectOptions, Connection, Database as Driver, MySqlPool, PgPool, Pool, SqlitePool,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::time::timeout;

use crate::{
    address::Address,
    place::{Access, Place},
};

/// How long a database may take to answer for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a write to SQLite waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A database that answered. See [`with_pool`].
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) pool: AnyPool,
    pub(crate) place: Place,
}

/// A connection pool of one kind or another.
#[derive(Debug)]
pub(crate) enum AnyPool {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// Awaits what is done with the pool, whatever its type, and names the database in an error that comes from there.
///
/// It is boxed, because three futures in one are large.
macro_rules! with_pool {
    ($database:expr, $pool:ident => $work:expr) => {{
        let database: &$crate::database::Database = &$database;
        let done = match &database.pool {
            $crate::database::AnyPool::Postgres($pool) => Box::pin($work).await,
            $crate::database::AnyPool::MySql($pool) => Box::pin($work).await,
            $crate::database::AnyPool::Sqlite($pool) => Box::pin($work).await,
        };
        done.map_err(|error| database.place.name_in(error))
    }};
}
pub(crate) use with_pool;

/// Wakes the streams of other processes before this one ends. Those that cannot be told find the events by polling.
pub(crate) async fn wake(notify: Notify) {
    if let Err(error) = notify.send_and_wait().await {
        tracing::warn!(error = &error as &dyn Error, "cannot wake other processes, which find the events by polling");
    }
}

impl Database {
    /// Connects once, so that a database that is out of reach is known at once, and makes a pool.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, or the database cannot be reached. The message has no password in it.
    pub(crate) async fn connect(url: &str, access: Access) -> Result<Self> {
        let address = Address::parse(url)?;
        let place = Place { address: address.clone(), access };
        let connected = match address {
            Address::Postgres(options) => pool(options).await.map(AnyPool::Postgres),
            Address::MySql(options) => pool(options).await.map(AnyPool::MySql),
            Address::Sqlite(options) => sqlite(options, access).await.map(AnyPool::Sqlite),
        };
        match connected {
            Ok(pool) => Ok(Self { pool, place }),
            Err(error) => Err(error.context(place)),
        }
    }
}

async fn sqlite(options: SqliteConnectOptions, access: Access) -> Result<SqlitePool> {
    let mut options = options.busy_timeout(BUSY_TIMEOUT);
    let file = options.get_filename().to_owned();
    if !tokio::fs::try_exists(&file).await.unwrap_or(false) {
        check_directory(&file).await?;
        if access != Access::Create {
            bail!("the file does not exist: create it with `reflex migrate`, or correct --database-url");
        }
        // Readers and the writer do not wait for each other so; the setting stays with the file.
        options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    }
    pool(options).await
}

/// SQLite says only that it cannot open the file.
async fn check_directory(file: &Path) -> Result<()> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory
        && !tokio::fs::try_exists(directory).await.unwrap_or(false)
    {
        bail!("the directory {} does not exist: create it, or correct --database-url", directory.display());
    }
    Ok(())
}

/// The pool itself would try a refused connection again until its own deadline, and forget why.
async fn pool<DB: Driver>(options: <DB::Connection as Connection>::Options) -> Result<Pool<DB>> {
    let options = options.disable_statement_logging();
    let Ok(connected) = timeout(CONNECT_TIMEOUT, options.connect()).await else {
        bail!("connect: no answer within {} s", CONNECT_TIMEOUT.as_secs());
    };
    let connection: DB::Connection = connected.context("connect")?;
    connection.close().await.context("connect")?;
    Ok(PoolOptions::new().max_connections(4).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(url: &str, expected: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(Database::connect(url, Access::Read)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(expected) && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_wrong_url_is_told_with_what_would_be_right() {
        check_error("events.db", "has no scheme: it must begin with postgres://");
        check_error("mssql://u:secret@h/db", "begins with `mssql:`, which is unknown");
        check_error("mysql://u:secret@localhost", "names no database");
        check_error("postgres://u:secret@h:port/db", "write it like postgres://user");
        check_error("sqlite:/no/such/file.db", "SQLite file /no/such/file.db: the directory /no/such does not exist");
        check_error("sqlite:/no-such-file.db", "SQLite file /no-such-file.db: the file does not exist");
        for url in
            ["sqlite:", "sqlite://", "sqlite:?mode=ro", "sqlite::memory:", "sqlite://:memory:", "sqlite:x?mode=memory"]
        {
            check_error(url, "names no file: write it like sqlite:path/to/file.db");
        }
        check_error("postgres://u:secret@127.0.0.1:1/db", "PostgreSQL at 127.0.0.1:1, database `db`: connect: ");
    }
}
