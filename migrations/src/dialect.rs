use std::{ops::DerefMut, time::Duration};

use sqlx::{Database, Pool, SqlStr};

use crate::{Migration, plan::Record};

/// A database with reflex migrations: sqlx's `Postgres`, `MySql` and `Sqlite`, each under the
/// feature of its name.
///
/// It cannot be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no reflex migrations",
    note = "enable the feature `postgres`, `mysql` or `sqlite` of reflex-migrations"
)]
pub trait Dialect: Driver {}

impl<DB: Driver> Dialect for DB {}

/// What a database does in its own way.
pub trait Driver: Database {
    /// The connection that holds the lock. Dropped before `unlock`, it gives up the lock and
    /// whatever can still be undone.
    type Guard: DerefMut<Target = <Self as Database>::Connection> + Send;

    const MIGRATIONS: &'static [Migration];
    /// Creates the bookkeeping table if it is missing.
    const BOOKKEEPING: &'static str;
    /// An expression for the time in UTC.
    const NOW: &'static str;

    /// Waits until no one else holds the lock; none if that takes longer than `wait`.
    fn lock(pool: &Pool<Self>, wait: Duration) -> impl Future<Output = sqlx::Result<Option<Self::Guard>>> + Send;

    /// Makes what was done under the lock permanent and gives it up.
    fn unlock(guard: Self::Guard) -> impl Future<Output = sqlx::Result<()>> + Send;

    fn execute(conn: &mut <Self as Database>::Connection, sql: SqlStr)
    -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Whether a table would meet its own name, or that of a view or the like.
    fn has_table(
        conn: &mut <Self as Database>::Connection,
        name: &str,
    ) -> impl Future<Output = sqlx::Result<bool>> + Send;

    /// The bookkeeping table's rows in order of version.
    fn records(conn: &mut <Self as Database>::Connection) -> impl Future<Output = sqlx::Result<Vec<Record>>> + Send;

    /// Whether the error says that somebody else has locked what we need.
    fn is_busy(error: &sqlx::Error) -> bool;
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) const RECORDS: &str = "select version, name, checksum, applied_at from reflex_migrations order by version";

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) type Row = (i64, String, String, Option<chrono::DateTime<chrono::Utc>>);

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
impl From<Row> for Record {
    fn from((version, name, checksum, applied_at): Row) -> Self {
        Self { version, name, checksum, applied_at }
    }
}
