//! The database that a URL names, with a type for each kind.

use std::{path::Path, str::FromStr, time::Duration};

use anyhow::{Context, Result, bail};
use sqlx::{
    ConnectOptions, Connection, Database as Driver, MySqlPool, PgPool, Pool, SqlitePool,
    mysql::MySqlConnectOptions,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use tokio::time::timeout;

use crate::exit::Usage;

/// How long a database may take to answer for the first time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a write to SQLite waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection pool of one kind or another. See [`with_pool`].
#[derive(Debug)]
pub(crate) enum Database {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

/// What to do about an SQLite file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    Explain,
}

/// Awaits what is done with the pool, whatever its type. It is boxed, because three futures in one are large.
macro_rules! with_pool {
    ($database:expr, $pool:ident => $work:expr) => {
        match $database {
            $crate::database::Database::Postgres($pool) => Box::pin($work).await,
            $crate::database::Database::MySql($pool) => Box::pin($work).await,
            $crate::database::Database::Sqlite($pool) => Box::pin($work).await,
        }
    };
}
pub(crate) use with_pool;

impl Database {
    /// Connects once, so that a database that is out of reach is known at once, and makes a pool.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, or the database cannot be reached. The message has no password in it.
    pub(crate) async fn connect(url: &str, if_missing: IfMissing) -> Result<Self> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            "postgres" | "postgresql" => postgres(url).await.map(Self::Postgres),
            "mysql" => mysql(url).await.map(Self::MySql),
            "mariadb" => mysql(&url.replacen("mariadb", "mysql", 1)).await.map(Self::MySql),
            "sqlite" => sqlite(url, if_missing).await.map(Self::Sqlite),
            "" => Err(usage(format!("--database-url has no scheme: it must begin with {SCHEMES}"))),
            scheme => {
                let problem = format!("--database-url begins with `{scheme}:`, which is unknown");
                Err(usage(format!("{problem}: it must begin with {SCHEMES}")))
            }
        }
    }
}

const SCHEMES: &str = "postgres://, mysql://, mariadb:// or sqlite:";

async fn postgres(url: &str) -> Result<PgPool> {
    let options = parse::<PgConnectOptions>(url, "postgres://user:password@host:5432/database")?;
    let place = format!("PostgreSQL at {}:{}", options.get_host(), options.get_port());
    pool(options, &place).await
}

async fn mysql(url: &str) -> Result<MySqlPool> {
    let options = parse::<MySqlConnectOptions>(url, "mysql://user:password@host:3306/database")?;
    if options.get_database().is_none() {
        let problem = "--database-url names no database: write it like mysql://user:password@host:3306/database";
        return Err(usage(problem.to_owned()));
    }
    let place = format!("MySQL or MariaDB at {}:{}", options.get_host(), options.get_port());
    pool(options, &place).await
}

async fn sqlite(url: &str, if_missing: IfMissing) -> Result<SqlitePool> {
    if !names_file(url) {
        return Err(usage("--database-url names no file: write it like sqlite:path/to/file.db".to_owned()));
    }
    let mut options = parse::<SqliteConnectOptions>(url, "sqlite:path/to/file.db")?.busy_timeout(BUSY_TIMEOUT);
    let file = options.get_filename().to_owned();
    if !tokio::fs::try_exists(&file).await.unwrap_or(false) {
        check_directory(&file).await?;
        if if_missing == IfMissing::Explain {
            bail!(
                "SQLite file {} does not exist: create it with `reflex migrate`, or correct --database-url",
                file.display()
            );
        }
        // Readers and the writer do not wait for each other so; the setting stays with the file.
        options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    }
    pool(options, &format!("SQLite file {}", file.display())).await
}

/// A database in memory would be gone with the command.
fn names_file(url: &str) -> bool {
    let name = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let (path, parameters) = name.split_once('?').unwrap_or((name, ""));
    !path.is_empty() && path != ":memory:" && !parameters.split('&').any(|parameter| parameter == "mode=memory")
}

/// SQLite says only that it cannot open the file.
async fn check_directory(file: &Path) -> Result<()> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory
        && !tokio::fs::try_exists(directory).await.unwrap_or(false)
    {
        bail!(
            "open SQLite file {}: the directory {} does not exist: create it, or correct --database-url",
            file.display(),
            directory.display()
        );
    }
    Ok(())
}

fn usage(problem: String) -> anyhow::Error {
    Usage(problem).into()
}

fn parse<O: FromStr<Err = sqlx::Error>>(url: &str, example: &str) -> Result<O> {
    O::from_str(url).with_context(|| Usage(format!("--database-url cannot be read: write it like {example}")))
}

/// The pool itself would try a refused connection again until its own deadline, and forget why.
async fn pool<DB: Driver>(options: <DB::Connection as Connection>::Options, place: &str) -> Result<Pool<DB>> {
    let options = options.disable_statement_logging();
    let Ok(connected) = timeout(CONNECT_TIMEOUT, options.connect()).await else {
        bail!("connect to {place}: no answer within {} s", CONNECT_TIMEOUT.as_secs());
    };
    let connection: DB::Connection = connected.with_context(|| format!("connect to {place}"))?;
    connection.close().await.with_context(|| format!("connect to {place}"))?;
    Ok(PoolOptions::new().max_connections(4).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(url: &str, expected: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(Database::connect(url, IfMissing::Explain)).unwrap_err();
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
        check_error("sqlite:/no-such-file.db", "SQLite file /no-such-file.db does not exist");
        for url in
            ["sqlite:", "sqlite://", "sqlite:?mode=ro", "sqlite::memory:", "sqlite://:memory:", "sqlite:x?mode=memory"]
        {
            check_error(url, "names no file: write it like sqlite:path/to/file.db");
        }
        check_error("postgres://u:secret@127.0.0.1:1/db", "connect to PostgreSQL at 127.0.0.1:1");
    }
}
