mod session;
mod status;
mod store;

use std::{fmt, sync::Arc};

use reflex_core::{Cursor, Metrics, Selection};
use sqlx::Pool;

use self::session::Session;
pub use self::status::{ErrorStatus, StoredError, StoredLetter};
use crate::{
    EventsTable, Notify, Result,
    dialect::{
        Dialect,
        errors::{ErrorsSql, Value},
    },
    error::{Error, Problem},
    options::ErrorsTableOptions,
    table::{Lease, on_lease, within},
};

/// How often a transaction is tried again that met another one.
const ATTEMPTS: u32 = 16;

/// A table of events that consumers could not handle, in a SQL database, for any number of consumers. Handles are cheap to
/// clone.
///
/// The errors table and the stream of error events have the shape of luno/reflex, so that its tools read them, and its tables
/// open as they are. Tables of our own beside them keep what a redrive needs: the whole event, and how far the redrive is.
///
/// | table | has |
/// |---|---|
/// | `consumer_errors` | a row for each event that was ever put aside, with its first error and its [status](ErrorStatus) |
/// | `consumer_errors_events` | an event for each change of the status, in the same transaction: the foreign id is the id of the row above, the type its status, the metadata the consumer's name |
/// | `consumer_errors_letters` | the open letters: the event, its place in the order, parked, requested, claimed |
/// | `consumer_errors_positions` | the last place of each consumer, which is what writers lock |
/// | `consumer_errors_attempts` | counted attempts |
///
/// A letter is open until it was redriven with success or discarded. Then the copy of its event is deleted; the row in the
/// errors table stays as history.
///
/// # Guarantees
///
/// All processes that use the tables are coherent. Writers of one consumer take turns, in transactions of a few statements,
/// so that the question whether a foreign id has an open letter and the answer's consequence are one step. Asking without an
/// open letter of these foreign ids takes no lock: it is one statement for all of them.
///
/// The order of letters is the order in which they were put aside. The [bound](ErrorsTableOptions::max_open) is exact, as
/// long as all processes set the same.
///
/// A claim runs out after its [lease](ErrorsTableOptions::claim_lease), by the clock of the database. Settling a claim that
/// somebody else has taken over does nothing but log a warning: the letter belongs to the other one, whose outcome counts.
///
/// # Examples
///
/// ```
/// use reflex_core::{DeadLetterStore, HandlerError, MemoryEvents, NewEvent, Selection};
/// use reflex_sql::{DialectName, ErrorsTable, ErrorsTableOptions, ddl};
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// let ddl = ddl::errors(DialectName::Sqlite, &ErrorsTableOptions::new("consumer_errors"))?;
/// sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await?;
///
/// let errors = ErrorsTable::open(&pool, "consumer_errors").await?;
/// let event = MemoryEvents::new().append(NewEvent::new("order-12", 1));
/// errors.put("billing", &event, &HandlerError::new("no such card")).await?;
///
/// // An operator wants it redriven; the consumer takes it and hands it to its own code.
/// errors.request("billing", &Selection::All).await?;
/// let letter = errors.claim("billing").await?.unwrap();
/// assert_eq!((letter.event.foreign_id(), letter.error.as_str()), ("order-12", "no such card"));
/// errors.settle(&letter, Ok(())).await?;
/// assert!(errors.list(Some("billing"), 10).await?.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct ErrorsTable<D: Dialect> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Dialect> {
    pool: Pool<D>,
    sql: ErrorsSql,
    events: Option<EventsTable<D>>,
    options: ErrorsTableOptions,
    metrics: Metrics,
}

/// What a transaction did, for what follows its commit.
struct Done<T> {
    answer: T,
    /// The letters that it added.
    added: u64,
    /// The letters of the consumer that are open.
    open: i64,
    notify: Option<Notify>,
}

impl<D: Dialect> ErrorsTable<D> {
    /// Opens the tables and checks their columns.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, a table does not exist, or its columns are not what they should be; and whatever
    /// [`EventsTable::open`] says of the events table, unless errors are only recorded.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    pub async fn open(pool: &Pool<D>, options: impl Into<ErrorsTableOptions>) -> Result<Self> {
        let options = options.into();
        let names = options.names()?;
        let attempted = || format!("open errors table `{}`", names.table);
        let inspect = async |conn: &mut D::Connection| D::inspect_errors(conn, &names).await;
        let sql = on_lease(pool, options.deadline, attempted, inspect).await?;
        let events = match options.events() {
            Some(options) => Some(EventsTable::open(pool, options).await?),
            None => None,
        };
        let metrics = options.metrics.clone().unwrap_or_else(Metrics::global);
        let opened = Self { inner: Arc::new(Inner { pool: pool.clone(), sql, events, options, metrics }) };
        opened.show_counts().await?;
        Ok(opened)
    }

    /// The name of the errors table, with its schema if it was given.
    #[must_use]
    pub fn name(&self) -> String {
        self.inner.sql.table.to_string()
    }

    /// The events table of the error events, to stream them; `None` if errors are only recorded.
    ///
    /// The type of an error event converts into an [`ErrorStatus`].
    #[must_use]
    pub fn events(&self) -> Option<&EventsTable<D>> {
        self.inner.events.as_ref()
    }

    /// The open letters of one consumer or of all, oldest first, at most so many. Without the events' metadata and trace,
    /// which [`get`](ErrorsTable::get) brings.
    ///
    /// # Errors
    ///
    /// If the tables cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn list(&self, consumer: Option<&str>, limit: u32) -> Result<Vec<StoredLetter>> {
        let sql = &self.inner.sql;
        let limit = Value::Int(limit.into());
        let attempted = "list the open letters";
        self.read(attempted, async |conn: &mut D::Connection| {
            let rows = match consumer {
                Some(consumer) => D::read_letters(conn, sql.oldest(), &[Value::Text(consumer), limit]).await,
                None => D::read_letters(conn, sql.list.clone(), &[limit]).await,
            };
            Ok(rows.map_err(self.failed(attempted))?.iter().map(StoredLetter::from).collect())
        })
        .await
    }

    /// The errors of one consumer or of all, resolved ones and those that luno/reflex recorded too, newest first, at most so
    /// many.
    ///
    /// # Errors
    ///
    /// If the tables cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn history(&self, consumer: Option<&str>, limit: u32) -> Result<Vec<StoredError>> {
        let sql = &self.inner.sql;
        let limit = Value::Int(limit.into());
        let attempted = "list the errors";
        self.read(attempted, async |conn: &mut D::Connection| {
            let rows = match consumer {
                Some(consumer) => D::read_errors(conn, sql.errors_of.clone(), &[Value::Text(consumer), limit]).await,
                None => D::read_errors(conn, sql.errors.clone(), &[limit]).await,
            };
            Ok(rows.map_err(self.failed(attempted))?.into_iter().map(StoredError::from).collect())
        })
        .await
    }

    /// The open letter of an event, whole; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If the tables cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn get(&self, consumer: &str, event: &Cursor) -> Result<Option<StoredLetter>> {
        let attempted = format!("get the letter of event {event} of consumer `{consumer}`");
        self.read(&attempted, async |conn: &mut D::Connection| {
            Session::<D>::new(conn, &self.inner, consumer).get(&event.to_string()).await
        })
        .await
    }

    /// The letters that a selection means, oldest first, without metadata and trace: what [`request`](ErrorsTable::request)
    /// and [`discard`](ErrorsTable::discard) would be about.
    ///
    /// # Errors
    ///
    /// If the tables cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn select(&self, consumer: &str, selection: &Selection) -> Result<Vec<StoredLetter>> {
        let attempted = format!("list the letters of consumer `{consumer}`");
        self.read(&attempted, async |conn: &mut D::Connection| {
            let rows = Session::<D>::new(conn, &self.inner, consumer).select(selection).await?;
            Ok(rows.iter().map(StoredLetter::from).collect())
        })
        .await
    }

    /// Requests that these letters are handed to their consumer again, in their order. Returns them, oldest first, without
    /// metadata and trace. The consumer does it itself, with its own code, when it looks for requests.
    ///
    /// # Errors
    ///
    /// If one is parked behind a letter that is open and not requested, or the tables cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped either all of them are requested or none.
    pub async fn request(&self, consumer: &str, selection: &Selection) -> Result<Vec<StoredLetter>> {
        let attempted = format!("request a redrive of letters of consumer `{consumer}`");
        self.write(&attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                session.lock(0).await?;
                let mut rows = session.select(selection).await?;
                session.request(selection, &rows).await?;
                rows.iter_mut().for_each(|row| row.requested = true);
                Ok(rows.iter().map(StoredLetter::from).collect())
            }
        })
        .await
    }

    /// Discards letters: they are open no more, and their consumer never sees their events again. Returns them, oldest first,
    /// without metadata and trace.
    ///
    /// What is parked behind a discarded letter stays where it is, and may be redriven or discarded then. A letter that is
    /// being redriven is discarded as well; its outcome does not count any more.
    ///
    /// # Errors
    ///
    /// If the tables cannot be written.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped either all of them are discarded or none.
    pub async fn discard(&self, consumer: &str, selection: &Selection) -> Result<Vec<StoredLetter>> {
        let attempted = format!("discard letters of consumer `{consumer}`");
        let done = self.write(&attempted, || {
            async |conn: &mut D::Connection| {
                let mut session = Session::<D>::new(conn, &self.inner, consumer);
                session.lock(0).await?;
                let rows = session.select(selection).await?;
                session.discard(selection, &rows).await?;
                session.done(rows.iter().map(StoredLetter::from).collect()).await
            }
        });
        Ok(self.finish(consumer, done.await?))
    }

    /// Tells what a committed transaction did.
    fn finish<T>(&self, consumer: &str, done: Done<T>) -> T {
        if let Some(notify) = done.notify {
            notify.send();
        }
        self.inner.metrics.dead_lettered(consumer).inc_by(done.added);
        self.inner.metrics.dead_letters_open(consumer).set(done.open);
        done.answer
    }

    async fn show_counts(&self) -> Result<()> {
        let attempted = "count the open letters";
        let counts = self.read(attempted, async |conn: &mut D::Connection| {
            D::read_texts(conn, self.inner.sql.counts.clone(), &[]).await.map_err(self.failed(attempted))
        });
        for (consumer, open) in counts.await? {
            self.inner.metrics.dead_letters_open(&consumer).set(open);
        }
        Ok(())
    }

    /// Says what was attempted when the database failed.
    fn failed(&self, attempted: &str) -> impl FnOnce(sqlx::Error) -> Error + use<D> {
        Problem::database(format!("{attempted} in table `{}`", self.name()))
    }

    /// Runs what only reads.
    async fn read<T>(&self, attempted: &str, query: impl AsyncFnOnce(&mut D::Connection) -> Result<T>) -> Result<T> {
        let attempted = || format!("{attempted} in table `{}`", self.inner.sql.table);
        on_lease(&self.inner.pool, self.inner.options.deadline, attempted, query).await
    }

    /// Runs a transaction, again if it met another one. `work` is a factory because a borrowed async closure is not `Send`.
    async fn write<T, W: AsyncFnOnce(&mut D::Connection) -> Result<T>>(
        &self,
        attempted: &str,
        work: impl Fn() -> W,
    ) -> Result<T> {
        let attempted = || format!("{attempted} in table `{}`", self.inner.sql.table);
        let written = within(&self.inner.pool, self.inner.options.deadline, attempted, async {
            let mut attempts = 1;
            loop {
                match Box::pin(self.transact(attempted, work())).await {
                    Err(error) if error.is_contention() && attempts < ATTEMPTS => attempts += 1,
                    done => return done,
                }
            }
        });
        Box::pin(written).await
    }

    async fn transact<T>(
        &self,
        attempted: impl Fn() -> String,
        work: impl AsyncFnOnce(&mut D::Connection) -> Result<T>,
    ) -> Result<T> {
        let mut conn = Lease::<D>::acquire(&self.inner.pool, attempted()).await?;
        let mut tx = D::begin_write(&mut conn).await.map_err(Problem::database(attempted()))?;
        let done = work(&mut tx).await;
        let ended = if done.is_ok() { tx.commit().await } else { tx.rollback().await };
        ended.map_err(Problem::database(attempted()))?;
        conn.release();
        done
    }
}

impl<D: Dialect> Clone for ErrorsTable<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Dialect> fmt::Debug for ErrorsTable<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorsTable").field("name", &self.name()).finish_non_exhaustive()
    }
}
