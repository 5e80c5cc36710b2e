//! Operations on dead letters. Their statements are nearly the same everywhere, so they are written once, with the words in
//! which the databases differ.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use chrono::{DateTime, Utc};
use reflex_core::{Event, EventParts};
use sqlx::{SqlStr, Transaction};

use self::sql::Words;
pub(crate) use self::sql::{ErrorsSql, Which, event_of, which};
use super::Operations;
use crate::{Result, options::ErrorsNames};

/// Reads the rows that every dialect reads alike.
macro_rules! errors_operations {
    ($database:ty, $connection:ty) => {
        async fn change(conn: &mut $connection, sql: SqlStr, values: &[Value<'_>]) -> Result<u64, sqlx::Error> {
            let done = bind(sql, values).execute(conn).await?;
            Ok(done.rows_affected())
        }

        async fn read_numbers(
            conn: &mut $connection,
            sql: SqlStr,
            values: &[Value<'_>],
        ) -> Result<Vec<i64>, sqlx::Error> {
            let rows = bind(sql, values).fetch_all(conn).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        }

        async fn read_texts(
            conn: &mut $connection,
            sql: SqlStr,
            values: &[Value<'_>],
        ) -> Result<Vec<(String, i64)>, sqlx::Error> {
            let rows = bind(sql, values).fetch_all(conn).await?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        }

        async fn read_pairs(
            conn: &mut $connection,
            sql: SqlStr,
            values: &[Value<'_>],
        ) -> Result<Vec<(i64, i64)>, sqlx::Error> {
            let rows = bind(sql, values).fetch_all(conn).await?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        }

        async fn read_letters(
            conn: &mut $connection,
            sql: SqlStr,
            values: &[Value<'_>],
        ) -> Result<Vec<LetterRow>, sqlx::Error> {
            let rows = bind(sql, values).fetch_all(conn).await?;
            let letter = |row: &<$database as sqlx::Database>::Row| {
                Ok(LetterRow {
                    consumer: row.try_get(0)?,
                    position: row.try_get(1)?,
                    event_id: row.try_get(2)?,
                    error_id: row.try_get(3)?,
                    foreign_id: row.try_get(4)?,
                    event_type: row.try_get(5)?,
                    timestamp: row.try_get(6)?,
                    error: row.try_get(7)?,
                    parked: row.try_get(8)?,
                    redrives: row.try_get(9)?,
                    last_error: row.try_get(10)?,
                    requested: row.try_get(11)?,
                    claim: row.try_get(12)?,
                    claimed: row.try_get(13)?,
                    created_at: row.try_get(14)?,
                    metadata: row.try_get(15)?,
                    trace: row.try_get(16)?,
                })
            };
            rows.iter().map(letter).collect()
        }

        async fn read_errors(
            conn: &mut $connection,
            sql: SqlStr,
            values: &[Value<'_>],
        ) -> Result<Vec<ErrorRow>, sqlx::Error> {
            let rows = bind(sql, values).fetch_all(conn).await?;
            let error = |row: &<$database as sqlx::Database>::Row| {
                Ok(ErrorRow {
                    id: row.try_get(0)?,
                    consumer: row.try_get(1)?,
                    event_id: row.try_get(2)?,
                    error: row.try_get(3)?,
                    status: row.try_get(4)?,
                    created_at: row.try_get(5)?,
                    updated_at: row.try_get(6)?,
                })
            };
            rows.iter().map(error).collect()
        }
    };
}

use errors_operations;

/// The operations on dead letters that [`Dialect`](super::Dialect) stands for.
pub trait ErrorsOperations: Operations {
    /// The most characters that consumer, event id and foreign id may have.
    const MAX_KEY: usize;

    /// Checks the tables and prepares the SQL text for them.
    fn inspect_errors(
        conn: &mut Self::Connection,
        names: &ErrorsNames,
    ) -> impl Future<Output = Result<ErrorsSql>> + Send;

    /// Begins a transaction that writes, in which each statement sees what was committed before it.
    fn begin_write<'c>(
        conn: &'c mut Self::Connection,
    ) -> impl Future<Output = Result<Transaction<'c, Self>, sqlx::Error>> + Send;

    /// Runs a statement; returns how many rows it touched.
    fn change(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Reads integers.
    fn read_numbers(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<i64>, sqlx::Error>> + Send;

    /// Reads pairs of a text and an integer.
    fn read_texts(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<(String, i64)>, sqlx::Error>> + Send;

    /// Reads pairs of integers.
    fn read_pairs(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<(i64, i64)>, sqlx::Error>> + Send;

    /// Reads letters.
    fn read_letters(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<LetterRow>, sqlx::Error>> + Send;

    /// Reads rows of the errors table.
    fn read_errors(
        conn: &mut Self::Connection,
        sql: SqlStr,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<ErrorRow>, sqlx::Error>> + Send;
}

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// An integer.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// Bytes; null if there are none.
    Bytes(&'a [u8]),
    /// A time.
    Time(DateTime<Utc>),
    /// Yes or no.
    Flag(bool),
}

/// A row of the letters table.
#[derive(Debug)]
pub struct LetterRow {
    pub(crate) consumer: String,
    pub(crate) position: i64,
    pub(crate) event_id: String,
    pub(crate) error_id: i64,
    pub(crate) foreign_id: String,
    pub(crate) event_type: i32,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) error: String,
    pub(crate) parked: bool,
    pub(crate) redrives: i32,
    pub(crate) last_error: Option<String>,
    pub(crate) requested: bool,
    pub(crate) claim: Option<i64>,
    /// By the clock of the database.
    pub(crate) claimed: Option<bool>,
    pub(crate) created_at: DateTime<Utc>,
    metadata: Option<Vec<u8>>,
    trace: Option<Vec<u8>>,
}

impl LetterRow {
    pub(crate) fn event(&self) -> Event {
        Event::from(EventParts {
            id: self.event_id.as_str().into(),
            event_type: self.event_type.into(),
            foreign_id: &self.foreign_id,
            timestamp: self.timestamp,
            metadata: self.metadata.as_deref().unwrap_or_default(),
            trace: self.trace.as_deref().unwrap_or_default(),
        })
    }
}

/// A row of the errors table.
#[derive(Debug)]
pub struct ErrorRow {
    pub(crate) id: i64,
    pub(crate) consumer: String,
    pub(crate) event_id: String,
    pub(crate) error: String,
    pub(crate) status: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// Checks the tables beside the errors table, which are ours.
macro_rules! require_own_tables {
    ($conn:expr, $names:expr, $columns:path) => {{
        for (table, what, wanted) in [
            (&$names.letters, "dead letters", $crate::dialect::errors::LETTER_COLUMNS),
            (&$names.positions, "the positions of dead letters", &["consumer", "last_position"][..]),
            (&$names.attempts, "counted attempts", &["consumer", "event_id", "attempts", "updated_at"]),
        ] {
            let columns = $columns($conn, table, what).await?;
            for column in wanted {
                columns.require(column, &[])?;
            }
        }
    }};
}

use require_own_tables;

const LETTER_COLUMNS: &[&str] = &[
    "consumer",
    "position",
    "event_id",
    "error_id",
    "foreign_id",
    "event_type",
    "event_timestamp",
    "metadata",
    "trace",
    "error",
    "parked",
    "redrives",
    "last_error",
    "requested",
    "claim",
    "claimed_until",
    "created_at",
];
