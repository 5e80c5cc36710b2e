use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Weak},
    time::Duration,
};

use reflex_core::EventsTableMetrics;
use sqlx::{Pool, pool::PoolConnection};
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{
    Result,
    dialect::{Dialect, EventsSql},
    error::{Error, Problem},
    options::EventsTableOptions,
    page::{Entry, Page, Range, Scan},
    tail::Tail,
    wake::{Bell, Remote},
};

/// What all handles and streams of one opened table share.
pub(crate) struct Table<D: Dialect> {
    pub(crate) sql: EventsSql,
    pub(crate) options: EventsTableOptions,
    pub(crate) metrics: EventsTableMetrics,
    /// Rung when there may be something to read.
    pub(crate) wake: Arc<Notify>,
    /// What a commit in this process rings.
    pub(crate) bell: Arc<Bell>,
    /// Sends hints to other processes. It ends when the table is dropped.
    _sender: JoinSet<()>,
    /// Streams that are behind the ring take turns, so that none waits for a connection longer than for the others' pages.
    pub(crate) turns: Semaphore,
    readers: Pool<D>,
    tail: Mutex<Weak<Tail>>,
}

impl<D: Dialect> Table<D> {
    pub(crate) fn new(
        readers: Pool<D>,
        sql: EventsSql,
        options: EventsTableOptions,
        metrics: EventsTableMetrics,
        remote: Option<Remote>,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        let bell = Arc::new(Bell::new(wake.clone(), remote));
        let mut sender = JoinSet::new();
        sender.spawn(bell.clone().send_hints());
        Self {
            sql,
            turns: Semaphore::new(options.reader_connections as usize - 1),
            options,
            metrics,
            wake,
            bell,
            _sender: sender,
            readers,
            tail: Mutex::new(Weak::new()),
        }
    }

    /// The shared reader, started if none is running.
    pub(crate) async fn tail(self: &Arc<Self>) -> Result<Arc<Tail>> {
        let mut slot = self.tail.lock().await;
        if let Some(tail) = slot.upgrade()
            && tail.is_running()
        {
            return Ok(tail);
        }
        let tail = Arc::new(Tail::start(self.clone()).await?);
        *slot = Arc::downgrade(&tail);
        Ok(tail)
    }

    pub(crate) async fn acquire(&self) -> Result<Lease<D>> {
        let attempted = || format!("read table `{}`", self.sql.table);
        within(&self.readers, self.options.deadline, attempted, Lease::acquire(&self.readers, attempted())).await
    }

    /// Lets a query fail that is not answered in time.
    pub(crate) async fn within<T>(&self, attempted: &str, query: impl Future<Output = Result<T>>) -> Result<T> {
        within(&self.readers, self.options.deadline, || format!("{attempted} of table `{}`", self.sql.table), query)
            .await
    }

    pub(crate) async fn read_page(&self, conn: &mut D::Connection, after: i64, limit: u32) -> Result<Page> {
        let mut entries = Vec::new();
        let scan = D::scan(conn, &self.sql, Range::page(after, limit), |entry| entries.push(entry));
        let scan = self.measured(scan).await?;
        Ok(Page { entries, scan })
    }

    /// Takes the rows of a range, one by one as they arrive.
    pub(crate) async fn scan_many(
        &self,
        conn: &mut D::Connection,
        range: Range,
        take: impl FnMut(Entry) + Send,
    ) -> Result<Scan> {
        self.measured(D::scan_many(conn, &self.sql, range, take)).await
    }

    async fn measured(&self, scan: impl Future<Output = Result<Scan>>) -> Result<Scan> {
        let timer = self.metrics.loading_seconds.start_timer();
        let scan = self.within("read a page", scan).await?;
        timer.observe_duration();
        self.metrics.deserialization_seconds.inc_by(scan.decoding.as_secs_f64());
        self.metrics.events_deserialized.inc_by(scan.rows.into());
        Ok(scan)
    }
}

impl<D: Dialect> fmt::Debug for Table<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("sql", &self.sql).field("options", &self.options).finish_non_exhaustive()
    }
}

/// A connection that goes back to its pool only when it is released.
///
/// Dropped in the middle of an answer it is closed: what is left of the answer can keep the pool, which reads to its end
/// before it lends the connection again, waiting for ever.
#[derive(Debug)]
pub(crate) struct Lease<D: Dialect>(Option<PoolConnection<D>>);

impl<D: Dialect> Lease<D> {
    pub(crate) fn new(conn: PoolConnection<D>) -> Self {
        Self(Some(conn))
    }

    /// Takes a connection from the pool. `attempted` says what for.
    pub(crate) async fn acquire(pool: &Pool<D>, attempted: impl Into<String>) -> Result<Self> {
        let failed = |source| match source {
            sqlx::Error::PoolTimedOut => Self::failed(pool, attempted, source),
            _ => Problem::database(format!("connect to {} to {}", D::location(pool), attempted.into()))(source),
        };
        pool.acquire().await.map(Self::new).map_err(failed)
    }

    /// What came of an attempt that may have needed a connection of the pool: a wait in vain names the server.
    pub(crate) fn failed(pool: &Pool<D>, attempted: impl Into<String>, source: sqlx::Error) -> Error {
        if !matches!(source, sqlx::Error::PoolTimedOut) {
            return Problem::database(attempted)(source);
        }
        Problem::NoConnection { attempted: attempted.into(), server: D::location(pool), source }.into()
    }

    /// Puts the connection back. Nothing may be under way on it.
    pub(crate) fn release(mut self) {
        drop(self.0.take());
    }
}

impl<D: Dialect> Deref for Lease<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.0.as_ref().expect("it is there until it is released")
    }
}

impl<D: Dialect> DerefMut for Lease<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.0.as_mut().expect("it is there until it is released")
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        match self.0.take() {
            // The only connection may hold the whole database.
            Some(conn) if D::SHARES_POOL => drop(conn),
            Some(conn) => drop(conn.detach()),
            None => {}
        }
    }
}

/// Lets a query fail that is not answered by the deadline.
pub(crate) async fn within<D: Dialect, T>(
    pool: &Pool<D>,
    deadline: Duration,
    attempted: impl FnOnce() -> String,
    query: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(deadline, query).await {
        Ok(answer) => answer,
        Err(_) => Err(Problem::Deadline { attempted: attempted(), server: D::location(pool), deadline }.into()),
    }
}

/// Does what needs one connection of the pool and no transaction, by the deadline.
pub(crate) async fn on_lease<D: Dialect, T>(
    pool: &Pool<D>,
    deadline: Duration,
    attempted: impl Fn() -> String,
    work: impl AsyncFnOnce(&mut D::Connection) -> Result<T>,
) -> Result<T> {
    let done = within(pool, deadline, &attempted, async {
        let mut conn = Lease::<D>::acquire(pool, attempted()).await?;
        let done = work(&mut conn).await;
        conn.release();
        done
    });
    // Boxed, as it is large, and would be part of every future that asks the database.
    Box::pin(done).await
}
