use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, Connection, Database, MySql, Pool, Postgres, Row, Sqlite,
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

/// A database that is tormented.
pub trait Backend: reflex_sql::Dialect + reflex_migrations::Dialect {
    /// What people call it.
    const TITLE: &'static str;

    /// Whether others wait while a transaction writes.
    const ONE_WRITER: bool;

    /// Begins a transaction that writes. SQLite has to know that from the start, or it may fail when the first row comes.
    const BEGIN: &'static str;

    /// The options of a connection to `url`.
    ///
    /// # Errors
    ///
    /// If it is no URL of this database.
    fn options(url: &str) -> Result<<Self::Connection as Connection>::Options>;

    /// Runs statements without parameters.
    fn run_sql(conn: &mut Self::Connection, sql: String) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// The first two columns of a query, an integer and text, or an integer and nothing.
    fn rows(
        conn: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Result<Vec<(i64, Option<String>)>, sqlx::Error>> + Send;

    /// A pool of connections that are made when they are needed.
    ///
    /// # Errors
    ///
    /// If it is no URL of this database.
    fn pool(url: &str) -> Result<Pool<Self>> {
        let pool = PoolOptions::new().max_connections(24).acquire_timeout(Duration::from_secs(20));
        Ok(pool.connect_lazy_with(Self::options(url)?))
    }

    /// A connection of its own, outside of any pool.
    fn connect(pool: &Pool<Self>) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send {
        let options = pool.connect_options();
        async move { Self::Connection::connect_with(&options).await }
    }

    /// Ids and foreign ids of all committed events in the default table, in the order of their ids.
    fn events(pool: &Pool<Self>) -> impl Future<Output = Result<Vec<(i64, i64)>>> + Send {
        async move {
            let sql = "select id, foreign_id from events where type <> 0 order by id";
            let rows = Self::rows(&mut *pool.acquire().await?, sql.to_owned()).await?;
            let pair = |(id, foreign_id): (i64, Option<String>)| {
                let foreign_id = foreign_id.context("an event has a foreign id")?;
                Ok((id, foreign_id.parse().with_context(|| format!("foreign id {foreign_id:?}"))?))
            };
            rows.into_iter().map(pair).collect()
        }
    }

    /// The only column of the only row of a query.
    fn number(pool: &Pool<Self>, sql: &str) -> impl Future<Output = Result<i64>> + Send {
        async move {
            let rows = Self::rows(&mut *pool.acquire().await?, sql.to_owned()).await;
            let rows = rows.with_context(|| format!("query {sql}"))?;
            rows.first().map(|row| row.0).with_context(|| format!("no row: {sql}"))
        }
    }
}

macro_rules! statements {
    () => {
        async fn run_sql(conn: &mut Self::Connection, sql: String) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop)
        }

        async fn rows(conn: &mut Self::Connection, sql: String) -> Result<Vec<(i64, Option<String>)>, sqlx::Error> {
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await?;
            let row = |row: &<Self as Database>::Row| {
                let text = if row.len() > 1 { Some(row.try_get(1)?) } else { None };
                Ok((row.try_get(0)?, text))
            };
            rows.iter().map(row).collect()
        }
    };
}

impl Backend for Postgres {
    const TITLE: &'static str = "Postgres";
    const ONE_WRITER: bool = false;
    const BEGIN: &'static str = "begin";

    fn options(url: &str) -> Result<<Self::Connection as Connection>::Options> {
        Ok(url.parse()?)
    }

    statements!();
}

impl Backend for MySql {
    const TITLE: &'static str = "MariaDB";
    const ONE_WRITER: bool = false;
    const BEGIN: &'static str = "start transaction";

    fn options(url: &str) -> Result<<Self::Connection as Connection>::Options> {
        Ok(url.parse()?)
    }

    statements!();
}

impl Backend for Sqlite {
    const TITLE: &'static str = "SQLite";
    const ONE_WRITER: bool = true;
    const BEGIN: &'static str = "begin immediate";

    fn options(url: &str) -> Result<<Self::Connection as Connection>::Options> {
        let options: SqliteConnectOptions = url.parse()?;
        // Writers wait for each other, without any order among them.
        Ok(options.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(60)))
    }

    statements!();
}
