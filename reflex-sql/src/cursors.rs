use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use prometheus::IntCounter;
use reflex_core::{Cursor, CursorStore, Metrics, check_forward};
use sqlx::Pool;

use crate::{
    Result,
    dialect::{CursorRow, CursorsSql, Dialect},
    error::{Error, Problem},
    options::CursorsTableOptions,
    table::{Lease, on_lease, within},
    tx::Open,
};

/// How often a write is tried again when another writer was faster.
const ATTEMPTS: u32 = 16;

/// A table of cursors in a SQL database. Handles are cheap to clone.
///
/// The cursor column is an integer or text. An integer cursor never moves backwards, in either; the check and the write are
/// one statement. Nothing is buffered: wrap the table in [`BufferedCursors`](reflex_core::BufferedCursors) unless each
/// cursor is worth a write.
///
/// # Examples
///
/// ```
/// use reflex_core::CursorStore;
/// use reflex_sql::{CursorsTable, CursorsTableOptions, ddl, DialectName};
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// let ddl = ddl::cursors(DialectName::Sqlite, &CursorsTableOptions::new("cursors"))?;
/// sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await?;
///
/// let cursors = CursorsTable::open(&pool, "cursors").await?;
/// cursors.set("billing", &7.into()).await?;
/// assert_eq!(cursors.get("billing").await?, Some(7.into()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct CursorsTable<D: Dialect> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Dialect> {
    pool: Pool<D>,
    sql: CursorsSql,
    options: CursorsTableOptions,
    sets: IntCounter,
}

/// A cursor as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredCursor {
    /// The consumer that it belongs to.
    pub consumer: String,
    /// The position.
    pub cursor: Cursor,
    /// When it was written last, if that is known.
    pub updated_at: Option<DateTime<Utc>>,
}

impl<D: Dialect> CursorsTable<D> {
    /// Opens a table and checks its columns.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, the table does not exist, or its columns are not what they should be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    pub async fn open(pool: &Pool<D>, options: impl Into<CursorsTableOptions>) -> Result<Self> {
        let options = options.into();
        let names = options.names()?;
        let attempted = || format!("open cursors table `{}`", names.table);
        let inspect = async |conn: &mut D::Connection| D::inspect_cursors(conn, &names).await;
        let sql = on_lease(pool, options.deadline, attempted, inspect).await?;
        let metrics = options.metrics.clone().unwrap_or_else(Metrics::global);
        let sets = metrics.cursor_sets(&names.table.to_string());
        Ok(Self { inner: Arc::new(Inner { pool: pool.clone(), sql, options, sets }) })
    }

    /// All cursors, by the name of their consumer.
    ///
    /// # Errors
    ///
    /// If the table cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn list(&self) -> Result<Vec<StoredCursor>> {
        let rows = self
            .within("list the cursors", async |conn: &mut D::Connection| D::list_cursors(conn, &self.inner.sql).await)
            .await?;
        let stored = |row: CursorRow| StoredCursor {
            consumer: row.consumer,
            cursor: row.cursor.into(),
            updated_at: row.updated_at,
        };
        Ok(rows.into_iter().map(stored).collect())
    }

    /// Deletes the cursor of a consumer, which then starts from the beginning. Returns false if it had none.
    ///
    /// # Errors
    ///
    /// If the table cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the cursor is there or not.
    pub async fn delete(&self, consumer: &str) -> Result<bool> {
        let attempted = format!("delete the cursor of consumer `{consumer}`");
        self.within(&attempted, async |conn: &mut D::Connection| {
            D::delete_cursor(conn, &self.inner.sql, consumer).await
        })
        .await
    }

    /// Sets the cursor of a consumer wherever it is, backwards too. For repairs by hand, while the consumer is stopped.
    ///
    /// # Errors
    ///
    /// If the table takes integers and the cursor is none, or the table cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the cursor is the old one or the new one.
    pub async fn force_set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        self.check_type(cursor)?;
        for _ in 0..ATTEMPTS {
            let stored = self.stored(consumer).await?;
            if stored.as_deref() == Some(cursor.to_string().as_str()) {
                return Ok(());
            }
            if self.replace(consumer, stored.as_deref(), cursor).await? {
                return Ok(());
            }
        }
        Err(self.contended(consumer))
    }

    /// In an integer column: one statement compares and moves.
    async fn advance(&self, consumer: &str, id: i64, cursor: &Cursor) -> reflex_core::Result<()> {
        let attempted = attempt_to_set(consumer);
        let failed = |error| store_error(&attempted, error);
        for _ in 0..ATTEMPTS {
            let moved = self.within(&attempted, async |conn: &mut D::Connection| {
                D::advance_cursor(conn, &self.inner.sql, consumer, id).await
            });
            if moved.await.map_err(failed)? {
                return Ok(());
            }
            // It is not below, or another writer was faster.
            if let Some(stored) = self.get(consumer).await? {
                check_forward(consumer, &stored, cursor)?;
            }
        }
        Err(failed(self.contended(consumer)))
    }

    /// In a text column: replaces what was read, if it is still there.
    async fn compare_and_set(&self, consumer: &str, cursor: &Cursor) -> reflex_core::Result<()> {
        let failed = |error| store_error(&attempt_to_set(consumer), error);
        for _ in 0..ATTEMPTS {
            let stored = self.stored(consumer).await.map_err(failed)?;
            if let Some(stored) = &stored {
                check_forward(consumer, &stored.as_str().into(), cursor)?;
            }
            if self.replace(consumer, stored.as_deref(), cursor).await.map_err(failed)? {
                return Ok(());
            }
        }
        Err(failed(self.contended(consumer)))
    }

    async fn stored(&self, consumer: &str) -> Result<Option<String>> {
        let attempted = format!("get the cursor of consumer `{consumer}`");
        self.within(&attempted, async |conn: &mut D::Connection| D::get_cursor(conn, &self.inner.sql, consumer).await)
            .await
    }

    async fn replace(&self, consumer: &str, old: Option<&str>, cursor: &Cursor) -> Result<bool> {
        let new = cursor.to_string();
        self.within(&attempt_to_set(consumer), async |conn: &mut D::Connection| {
            D::replace_cursor(conn, &self.inner.sql, consumer, old, &new).await
        })
        .await
    }

    /// Begins a transaction, on this connection or one of the pool, and moves the cursor in it, if it is still `old`.
    pub(crate) async fn begin(
        &self,
        idle: Option<Lease<D>>,
        consumer: &str,
        old: Option<&Cursor>,
        new: &Cursor,
    ) -> Result<Option<Open<D>>> {
        self.check_type(new)?;
        let attempted = || format!("begin a transaction and move the cursor of consumer `{consumer}` in it");
        let open = self.in_time(attempted, async {
            let mut open = self.transaction(idle).await?;
            if self.moves(open.conn(), consumer, old, new).await? {
                return Ok(Some(open));
            }
            open.rollback().await?.release();
            Ok(None)
        });
        let open = open.await?;
        self.inner.sets.inc_by(open.is_some().into());
        Ok(open)
    }

    /// Begins a transaction that leaves the cursor where it is.
    pub(crate) async fn begin_aside(&self, idle: Option<Lease<D>>, consumer: &str) -> Result<Open<D>> {
        self.in_time(|| format!("begin a transaction of consumer `{consumer}`"), self.transaction(idle)).await
    }

    /// Commits and returns the connection.
    pub(crate) async fn commit(&self, open: Open<D>, consumer: &str) -> Result<Lease<D>> {
        self.in_time(|| format!("commit a transaction of consumer `{consumer}`"), open.commit()).await
    }

    /// Returns the connection, unless the rollback was left to its end.
    pub(crate) async fn roll_back(&self, open: Open<D>, consumer: &str) -> Option<Lease<D>> {
        let attempted = || format!("roll back a transaction of consumer `{consumer}`");
        match self.in_time(attempted, open.rollback()).await {
            Ok(lease) => Some(lease),
            Err(error) => {
                tracing::warn!(
                    consumer,
                    error = &error as &dyn std::error::Error,
                    "the rollback was left to the server"
                );
                None
            }
        }
    }

    /// Whether a connection may be kept while it is not used: others have one too.
    pub(crate) fn may_keep_a_connection(&self) -> bool {
        let pool = &self.inner.pool;
        !D::SHARES_POOL && (pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections())
    }

    /// Moves the cursor by itself, if it is still `old`.
    pub(crate) async fn replace_believed(&self, consumer: &str, old: Option<&Cursor>, new: &Cursor) -> Result<bool> {
        self.check_type(new)?;
        self.inner.sets.inc();
        let moves = async |conn: &mut D::Connection| self.moves(conn, consumer, old, new).await;
        self.within(&attempt_to_set(consumer), moves).await
    }

    pub(crate) fn name(&self) -> String {
        self.inner.sql.table.to_string()
    }

    async fn transaction(&self, idle: Option<Lease<D>>) -> Result<Open<D>, sqlx::Error> {
        match idle {
            Some(lease) => Open::begin(lease).await,
            None => Open::begin(Lease::new(self.inner.pool.acquire().await?)).await,
        }
    }

    /// Returns false if the cursor is not `old`, or another transaction holds it.
    async fn moves(
        &self,
        conn: &mut D::Connection,
        consumer: &str,
        old: Option<&Cursor>,
        new: &Cursor,
    ) -> Result<bool, sqlx::Error> {
        let (old, new) = (old.map(Cursor::to_string), new.to_string());
        match D::replace_cursor(conn, &self.inner.sql, consumer, old.as_deref(), &new).await {
            Err(error) if D::is_race(&error) => Ok(false),
            moved => moved,
        }
    }

    async fn in_time<T>(
        &self,
        attempted: impl Fn() -> String,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T> {
        let attempted = || format!("{}, table `{}`", attempted(), self.inner.sql.table);
        let failed = |source| Lease::<D>::failed(&self.inner.pool, attempted(), source);
        within(&self.inner.pool, self.inner.options.deadline, attempted, async { query.await.map_err(failed) }).await
    }

    fn check_type(&self, cursor: &Cursor) -> Result<()> {
        if self.inner.sql.integer && cursor.as_i64().is_none() {
            let table = self.inner.sql.table.to_string();
            return Err(Problem::CursorNotAnInteger { table, cursor: cursor.to_string() }.into());
        }
        Ok(())
    }

    fn contended(&self, consumer: &str) -> Error {
        Problem::Contended { table: self.inner.sql.table.to_string(), consumer: consumer.to_owned() }.into()
    }

    async fn within<T>(
        &self,
        attempted: &str,
        query: impl AsyncFnOnce(&mut D::Connection) -> Result<T, sqlx::Error>,
    ) -> Result<T> {
        let attempted = || format!("{attempted} in table `{}`", self.inner.sql.table);
        on_lease(&self.inner.pool, self.inner.options.deadline, attempted, async |conn: &mut D::Connection| {
            query(conn).await.map_err(Problem::database(attempted()))
        })
        .await
    }
}

fn attempt_to_set(consumer: &str) -> String {
    format!("set the cursor of consumer `{consumer}`")
}

fn store_error(attempted: &str, error: Error) -> reflex_core::Error {
    reflex_core::Error::store(attempted.to_owned(), error)
}

impl<D: Dialect> CursorStore for CursorsTable<D> {
    async fn get(&self, consumer: &str) -> reflex_core::Result<Option<Cursor>> {
        let stored = self.stored(consumer).await;
        let stored = stored.map_err(|error| store_error(&format!("get the cursor of consumer `{consumer}`"), error))?;
        Ok(stored.map(Cursor::from))
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> reflex_core::Result<()> {
        self.inner.sets.inc();
        match cursor.as_i64() {
            Some(id) if self.inner.sql.integer => self.advance(consumer, id, cursor).await,
            _ => {
                self.check_type(cursor).map_err(|error| reflex_core::Error::invalid(error.to_string()))?;
                self.compare_and_set(consumer, cursor).await
            }
        }
    }
}

impl<D: Dialect> Clone for CursorsTable<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Dialect> fmt::Debug for CursorsTable<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorsTable").field("name", &self.inner.sql.table.to_string()).finish_non_exhaustive()
    }
}
