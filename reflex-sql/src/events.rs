use std::{fmt, sync::Arc};

use reflex_core::{BoxEventStream, Cursor, Metrics, NewEvent, Opened, Start, StreamFunc, StreamOptions};
use sqlx::Pool;

use crate::{
    Result,
    dialect::{Backlog, Dialect},
    error::Problem,
    options::{EventsTableOptions, GapMode},
    state, stream,
    table::{Table, on_lease},
    wake::{Bell, Remote},
};

/// A table of events in a SQL database: written in the transactions of its owner, followed by any number of streams.
///
/// Handles are cheap to clone. All streams that were opened through clones of one handle share one reader.
///
/// # Guarantees
///
/// Every event whose transaction commits reaches every stream, in the order of the ids, however it was inserted. A stream
/// never passes a missing id until it is proven that no open transaction can still fill it. The proof writes nothing and
/// disturbs no writer, but in [`GapMode::Noop`].
///
/// A long transaction that wrote to this table, an UPDATE or DELETE for retention too, holds back what was inserted after
/// it; one that wrote to other tables does not. After 10 seconds a warning in the log names the sessions.
///
/// A stream that starts at the head while a writer stays open for longer than a second starts before the lowest id that is
/// not proven yet, which can be far back in a table that this process has not read before. It misses nothing; it repeats.
///
/// Ids must be drawn by the insert itself, as they are in our tables on Postgres, where `generated always as identity` lets
/// nobody choose one. Where clients may, one that inserts an id below the highest, or calls `nextval` and inserts later,
/// comes too late: its event is not delivered to streams that are past it.
///
/// # Wake-ups
///
/// In this process a stream hears of a commit by [`Notify::send`]. Across processes hints are sent after the commit, never
/// inside of the transaction: the first at once, then at most one in 10 ms per opened table. On Postgres they go by `NOTIFY`;
/// elsewhere there are none unless [`wake_ups`](EventsTableOptions::wake_ups) brings some. A hint may be lost, so that an idle
/// table is looked at every [`poll_interval`](EventsTableOptions::poll_interval) too, which is how events that were inserted
/// by plain SQL are found. While no hints can arrive, a table is looked at 5 ms after something was found, then after ever
/// longer pauses up to the interval.
///
/// Listening is tested by a message to ourselves whenever it was silent for
/// [a while](EventsTableOptions::wake_up_heartbeat). Where it does not arrive, over a connection that is dead or behind a pooler
/// that shares sessions, a warning in the log says so once, the table is polled, and listening is tried again with growing
/// delays of up to a minute.
///
/// # Connections and privileges
///
/// Open a table once and clone the handle: each opened table has a reader of its own, and up to
/// [`reader_connections`](EventsTableOptions::reader_connections) connections beside the pool. On Postgres wake-ups take two
/// more: one that listens while there are streams, one that notifies. They need no privilege. On SQLite readers borrow
/// from the pool; give it more than one connection and the WAL mode, or a handler that holds the only connection waits for
/// its own stream.
///
/// Readers need SELECT on the table; on Postgres also SELECT on its sequence if clients may choose ids; on MySQL SELECT on
/// `performance_schema.metadata_locks` and `setup_instruments`, and XA_RECOVER_ADMIN; on MariaDB the plugin
/// `metadata_lock_info`; in [`GapMode::Noop`] INSERT on the table.
///
/// # Examples
///
/// ```
/// use futures_util::StreamExt;
/// use reflex_core::{NewEvent, StreamFunc, StreamOptions};
/// use reflex_sql::{EventsTable, EventsTableOptions, ddl, DialectName};
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// let ddl = ddl::events(DialectName::Sqlite, &EventsTableOptions::new("events"))?;
/// sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await?;
/// let events = EventsTable::open(&pool, "events").await?;
///
/// let mut tx = pool.begin().await?;
/// let notify = events.insert(&mut tx, NewEvent::new("order-12", 1)).await?;
/// tx.commit().await?;
/// notify.send();
///
/// let mut stream = events.open_stream(StreamOptions::new()).await?.events;
/// assert_eq!(stream.next().await.unwrap()?.foreign_id(), "order-12");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct EventsTable<D: Dialect> {
    table: Arc<Table<D>>,
}

/// The wish to wake the streams of a table, once the transaction that inserted events has committed.
///
/// It wakes those that were opened through the same [`EventsTable`] or a clone of it at once, and others by
/// [wake-ups](EventsTable#wake-ups). If it is dropped, they see the events at their next look at the table: nothing is lost, it
/// takes longer.
#[derive(Clone, Debug)]
#[must_use = "call `send` after the commit, or streams see the events only when they next look at the table"]
pub struct Notify(Arc<Bell>);

impl Notify {
    /// Wakes the streams. Call it after the commit; before, they would look too early.
    ///
    /// It does not wait: a task of the table tells other processes, if the table is still open and its runtime runs. A process
    /// that ends at once calls [`send_and_wait`](Self::send_and_wait).
    pub fn send(self) {
        self.0.ring();
    }

    /// Wakes the streams, and returns when the hint to other processes is on its way, for a process that ends after it.
    ///
    /// Hints of this method are not shared: a service that commits often calls [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// If the hint cannot be sent. The events are committed all the same, and found by polling.
    ///
    /// # Cancel safety
    ///
    /// After the future was dropped the hint was sent or not.
    pub async fn send_and_wait(self) -> Result<()> {
        self.0.ring_through().await
    }
}

impl<D: Dialect> EventsTable<D> {
    /// Opens a table and checks that it is fit to be read and written. Its readers make connections of their own, with the
    /// settings of the pool; on SQLite they borrow from the pool.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, the table does not exist, its columns are not what they should be, or it is set
    /// up so that events could be lost.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    pub async fn open(pool: &Pool<D>, options: impl Into<EventsTableOptions>) -> Result<Self> {
        let options = options.into();
        let names = options.names()?;
        let cluster = options.cluster_grace.is_some();
        let attempted = || format!("open events table `{}`", names.table);
        let inspect = async |conn: &mut D::Connection| {
            let sql = D::inspect_events(conn, &names, options.gap_mode, cluster).await?;
            let topic = D::topic(conn, &sql).await?;
            Ok((sql, topic))
        };
        let (sql, topic) = on_lease(pool, options.deadline, attempted, inspect).await?;
        let metrics = options.metrics.clone().unwrap_or_else(Metrics::global);
        let metrics = metrics.events_table(&names.table.to_string());
        metrics.gap_mode.with_label_values(&[names.table.to_string().as_str(), sql.mode.label()]).set(1);
        if options.gap_mode == GapMode::Auto && !sql.mode.proves() {
            tracing::warn!(
                table = %names.table,
                "metadata locks cannot be read, so gaps are filled with placeholders: `install soname \
                 'metadata_lock_info'` (MariaDB) or select on performance_schema.metadata_locks (MySQL) avoids that"
            );
        }
        tracing::info!(table = %names.table, gap_mode = sql.mode.label(), "opened the events table");
        let readers = D::readers(pool, options.reader_connections);
        let remote = options.wake_ups.choose(|| D::wake_ups(pool)).map(|wake_ups| {
            Remote::new(wake_ups, topic, names.table.to_string(), options.wake_up_heartbeat, metrics.clone())
        });
        Ok(Self { table: Arc::new(Table::new(readers, sql, options, metrics, remote)) })
    }

    /// The name of the table, with its schema if it was given.
    #[must_use]
    pub fn name(&self) -> String {
        self.table.sql.table.to_string()
    }

    /// Inserts an event in the caller's transaction, so that it is committed together with what it tells about. After the
    /// commit, send what is returned. Trace bytes are left out if the table has no column for them.
    ///
    /// # Errors
    ///
    /// If the event is a placeholder, has metadata that the table has no column for, or the database refuses it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, roll the transaction back.
    pub async fn insert(&self, tx: &mut D::Connection, event: NewEvent) -> Result<Notify> {
        self.insert_slice(tx, &[event]).await
    }

    /// Inserts events in their order, in one statement, or in few if they are very many. See [`EventsTable::insert`].
    ///
    /// # Errors
    ///
    /// As [`EventsTable::insert`]; the error says at which position a bad event stands.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, roll the transaction back.
    pub async fn insert_all(
        &self,
        tx: &mut D::Connection,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Result<Notify> {
        let events: Vec<_> = events.into_iter().collect();
        self.insert_slice(tx, &events).await
    }

    async fn insert_slice(&self, tx: &mut D::Connection, events: &[NewEvent]) -> Result<Notify> {
        for (at, event) in events.iter().enumerate() {
            self.validate(at, event)?;
        }
        let failed = |source| {
            let what = if events.len() == 1 { "an event".to_owned() } else { format!("{} events", events.len()) };
            Problem::database(format!("insert {what} into table `{}`", self.name()))(source)
        };
        D::insert(tx, &self.table.sql, events).await.map_err(failed)?;
        Ok(Notify(self.table.bell.clone()))
    }

    fn validate(&self, at: usize, event: &NewEvent) -> Result<()> {
        let problem = match event.validate() {
            Err(error) => error.to_string(),
            Ok(()) if self.table.sql.metadata.is_none() && !event.parts().metadata.is_empty() => {
                "it has metadata, and the table has no column for it".to_owned()
            }
            Ok(()) => return Ok(()),
        };
        Err(Problem::Event { table: self.name(), at, problem }.into())
    }

    /// The highest id of a committed event; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the database cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn head(&self) -> Result<Option<i64>> {
        let mut conn = self.table.acquire().await?;
        let bounds = self.table.within("find the highest id", D::bounds(&mut conn, &self.table.sql)).await?;
        conn.release();
        Ok((bounds.highest > 0).then_some(bounds.highest))
    }

    /// What waits for a consumer with this cursor. It counts rows, so it takes longer the more there are.
    ///
    /// # Errors
    ///
    /// If the cursor is not an integer or [ahead of the table](crate::Error::is_cursor_ahead), or the database cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn backlog(&self, cursor: Option<&Cursor>) -> Result<Backlog> {
        let after = cursor.map_or(Ok(0), |cursor| stream::parse(&self.table, cursor))?;
        let mut conn = self.table.acquire().await?;
        let bounds = self.table.within("find the highest id", D::bounds(&mut conn, &self.table.sql)).await?;
        bounds.check(after, &self.table.sql.table)?;
        let backlog = self.table.within("count the events", D::backlog(&mut conn, &self.table.sql, after)).await?;
        conn.release();
        Ok(backlog)
    }

    /// The sessions that may still write ids that are missing right after this cursor, as one look at the database tells; none
    /// if nothing holds a consumer with this cursor back.
    ///
    /// # Errors
    ///
    /// If the cursor is not an integer, or the database cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn blocking(&self, cursor: Option<&Cursor>) -> Result<Vec<String>> {
        let after = cursor.map_or(Ok(0), |cursor| stream::parse(&self.table, cursor))?;
        state::blocking(&self.table, after).await
    }

    /// Opens a stream by hand. It is [`StreamFunc::open`] under another name: `events.open(…)` would be
    /// [`EventsTable::open`].
    ///
    /// # Errors
    ///
    /// As [`StreamFunc::open`]; a cursor that is no integer or ahead of the table is one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing.
    pub async fn open_stream(&self, options: StreamOptions) -> reflex_core::Result<Opened<BoxEventStream>> {
        let opened = Box::pin(stream::open(&self.table, &options)).await;
        let (tail, position) = opened.map_err(|error| error.into_stream_error(&self.table.sql.table))?;
        let pinned = matches!(options.start(), Start::Head);
        let reached = state::Reached::new(position.into());
        let status = state::position_of(reached.clone(), tail.status());
        let opened = Opened::new(stream::events(self.table.clone(), tail, position, reached, options)).status(status);
        Ok(if pinned { opened.at(position) } else { opened })
    }
}

impl<D: Dialect> StreamFunc for EventsTable<D> {
    type Stream = BoxEventStream;

    async fn open(&self, options: StreamOptions) -> reflex_core::Result<Opened<BoxEventStream>> {
        self.open_stream(options).await
    }
}

impl<D: Dialect> Clone for EventsTable<D> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone() }
    }
}

impl<D: Dialect> fmt::Debug for EventsTable<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsTable").field("name", &self.name()).finish_non_exhaustive()
    }
}
