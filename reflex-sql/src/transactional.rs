use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reflex_core::{Cursor, CursorStore, Error, HandlerError, Input, check_forward};

use crate::{
    CursorsTable,
    dialect::Dialect,
    error::Problem,
    position::{Finding, Move, Plan, Position, is_ahead},
    table::Lease,
    transactional_consumer::{FnHandler, TransactionalConsumer, TransactionalHandler},
    tx::{Open, Tx},
};

/// Cursors that move in the transaction in which the effects of an event are written: each event takes effect exactly once.
///
/// It makes consumers, and it is the cursor store of the specs that run them. Both halves must be clones of one value; clones
/// are cheap, and one value serves any number of consumers, each with a name of its own.
///
/// For each event, or each batch, the consumer begins a transaction, moves the cursor in it from where this run left it,
/// hands the transaction to the handler, and commits. If anything fails, all of it is undone, and the cursor stays.
///
/// # Guarantees
///
/// - *Exactly once.* What the handler writes through its [`Tx`] is committed together with the cursor or not at all, also
///   when the process is killed and when a commit ends without an answer.
/// - *Fenced.* The cursor moves before the handler runs, and only from where this run left it. If somebody else runs the same
///   consumer, one of the two finds the cursor moved, and its run ends with an error that
///   [`is_fenced`](reflex_core::Error::is_fenced), which has changed nothing. Patterns must not swallow it.
///
/// Neither holds for anything outside of this transaction: mails, calls to other services, other databases and statements
/// on other connections happen again when an event is handled again.
///
/// After a crash the server may still be committing the last transaction of the process that died. A run that begins at that
/// moment ends as if another runner had been there; the next one goes on.
///
/// # With patterns
///
/// Batches, retries and what skips or puts aside events compose with it. A batch costs one transaction, which begins when
/// the whole batch is in hand. The cursor of what was not handled moves by itself. What was put aside is redriven in a
/// transaction that leaves the cursor where it is; should the process die between its commit and that of the letter, it is
/// redriven again. An event that the cursor has not passed is refused: the stream delivers it once more.
///
/// What hands over events in another order than that of the stream does not compose: an event at or before the cursor is
/// refused as one that somebody else handled. Nor does what gives the consumer another name: inside a shard, make it with the
/// name that the shard has.
///
/// For events that were handled the store does nothing. Those that were skipped, as most are in a shard, are a write each: a
/// [`BufferedCursors`](reflex_core::BufferedCursors) around it makes one of many.
///
/// # Cost
///
/// Four round trips for each transaction: begin, cursor, commit, and what the handler does. While events keep coming the
/// consumer keeps its connection, unless the pool has no other one left; idle, it holds none. On SQLite the pool needs a second
/// connection for everything else that happens while a handler runs.
///
/// # Examples
///
/// ```
/// use reflex_core::{CursorStore, Event, NewEvent, Spec, run};
/// use reflex_sql::{CursorsTable, EventsTable, TransactionalCursors};
/// # use reflex_sql::{DialectName, ddl};
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// # for ddl in [ddl::events(DialectName::Sqlite, &"events".into())?, ddl::cursors(DialectName::Sqlite, &"cursors".into())?] {
/// #     sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await?;
/// # }
/// # sqlx::query("create table totals (account text primary key, orders integer)").execute(&pool).await?;
/// let events = EventsTable::open(&pool, "events").await?;
/// # let mut tx = pool.begin().await?;
/// # let _ = events.insert(&mut tx, NewEvent::new("account-3", 1)).await?;
/// # tx.commit().await?;
/// let cursors = TransactionalCursors::new(CursorsTable::open(&pool, "cursors").await?);
///
/// let totals = cursors.consumer("totals", |mut tx, event: Event| async move {
///     sqlx::query("insert into totals values (?, 1) on conflict do update set orders = orders + 1")
///         .bind(event.foreign_id())
///         .execute(&mut *tx)
///         .await?;
///     Ok(())
/// });
/// let mut spec = Spec::new(events, cursors.clone(), totals).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
///
/// let orders: i64 = sqlx::query_scalar("select orders from totals").fetch_one(&pool).await?;
/// assert_eq!((orders, cursors.get("totals").await?), (1, Some(1.into())));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct TransactionalCursors<D: Dialect> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Dialect> {
    table: CursorsTable<D>,
    slots: Mutex<HashMap<Box<str>, Arc<Slot>>>,
}

/// What is known about the cursor of one consumer.
type Slot = Mutex<Position>;

impl<D: Dialect> TransactionalCursors<D> {
    /// Keeps cursors in this table, which is in the database that handlers write to.
    #[must_use]
    pub fn new(table: CursorsTable<D>) -> Self {
        Self { inner: Arc::new(Inner { table, slots: Mutex::default() }) }
    }

    /// Makes a consumer from an async closure over an owned [`Tx`] and an [`Event`](reflex_core::Event), or a `Vec<Event>`
    /// inside a pattern that collects batches.
    ///
    /// The closure has to name the type of its second parameter. See [`TransactionalCursors`] for an example.
    pub fn consumer<T, F, Fut>(&self, name: impl Into<Arc<str>>, handler: F) -> TransactionalConsumer<D, FnHandler<F>>
    where
        T: Input,
        F: FnMut(Tx<D>, T) -> Fut + Send,
        Fut: Future<Output = Result<(), HandlerError>> + Send,
    {
        TransactionalConsumer::new(self, name.into(), FnHandler::new(handler))
    }

    /// Makes a consumer from a handler that is a type of its own.
    pub fn consumer_with<T, H>(&self, name: impl Into<Arc<str>>, handler: H) -> TransactionalConsumer<D, H>
    where
        T: Input,
        H: TransactionalHandler<D, T>,
    {
        TransactionalConsumer::new(self, name.into(), handler)
    }

    /// What is known about the cursor of a consumer; it is the same for all clones.
    fn slot(&self, consumer: &str) -> Arc<Slot> {
        let mut slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get(consumer) {
            Some(slot) => slot.clone(),
            None => slots.entry(consumer.into()).or_default().clone(),
        }
    }

    /// The cursor half of one consumer.
    pub(crate) fn ledger(&self, consumer: Arc<str>) -> Ledger<D> {
        Ledger { slot: self.slot(&consumer), table: self.inner.table.clone(), consumer }
    }
}

impl<D: Dialect> CursorStore for TransactionalCursors<D> {
    async fn get(&self, consumer: &str) -> reflex_core::Result<Option<Cursor>> {
        let stored = Box::pin(self.inner.table.get(consumer)).await?;
        lock(&self.slot(consumer)).begin(stored.clone());
        Ok(stored)
    }

    /// Does nothing where a transaction has moved the cursor there or further. Otherwise moves it from where this run left
    /// it, or, if it was never read, forward from wherever it is.
    async fn set(&self, consumer: &str, cursor: &Cursor) -> reflex_core::Result<()> {
        let slot = self.slot(consumer);
        let (unread, settled) = {
            let position = lock(&slot);
            (position.stored().is_none(), position.is_settled(cursor))
        };
        match (settled, unread) {
            (true, _) => Ok(()),
            (false, true) => Box::pin(self.inner.table.set(consumer, cursor)).await,
            (false, false) => {
                let ledger = Ledger { slot, table: self.inner.table.clone(), consumer: consumer.into() };
                ledger.set(cursor).await
            }
        }
    }
}

impl<D: Dialect> Clone for TransactionalCursors<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Dialect> fmt::Debug for TransactionalCursors<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalCursors").field("table", &self.inner.table).finish_non_exhaustive()
    }
}

/// The cursor of one consumer: what is known of it, and where it is stored.
pub(crate) struct Ledger<D: Dialect> {
    slot: Arc<Slot>,
    table: CursorsTable<D>,
    consumer: Arc<str>,
}

/// A transaction in which the cursor has moved.
pub(crate) struct Moved<D: Dialect> {
    pub(crate) open: Open<D>,
    pub(crate) step: Move,
}

impl<D: Dialect> Ledger<D> {
    /// Begins a transaction and moves the cursor from where it is believed to be to `last`. `None` if a transaction of this
    /// run, whose commit ended without an answer, has done that.
    pub(crate) async fn begin(
        &self,
        idle: &mut Option<Lease<D>>,
        first: &Cursor,
        last: &Cursor,
    ) -> reflex_core::Result<Option<Moved<D>>> {
        loop {
            let in_doubt = lock(&self.slot).doubtful().cloned();
            let from = match lock(&self.slot).plan(first, last) {
                Plan::Done => return Ok(None),
                Plan::Read => return Err(self.not_read()),
                Plan::Behind(stored) => return Err(self.fenced(Some(&stored))),
                Plan::Move(from) => from,
            };
            // Boxed, as all that waits here, so that runs are not large futures.
            let begun = Box::pin(self.table.begin(idle.take(), &self.consumer, from.as_ref(), last));
            if let Some(open) = begun.await.map_err(|error| self.failed("begin the transaction", error))? {
                return Ok(Some(Moved { open, step: Move { from, to: last.clone() } }));
            }
            self.refused(in_doubt, from.as_ref()).await?;
        }
    }

    /// Refuses an event that the cursor has not passed: the stream delivers it again, and it would take effect twice.
    pub(crate) async fn check_passed(&self, event: &Cursor) -> reflex_core::Result<()> {
        let known = lock(&self.slot).stored().cloned();
        let stored = match known {
            Some(stored) if !is_ahead(event, stored.as_ref()) => stored,
            _ => self.table.get(&self.consumer).await?,
        };
        if is_ahead(event, stored.as_ref()) {
            return Err(Error::invalid(format!(
                "redrive event {event} of consumer `{}`: its cursor has not passed the event yet, so that the stream delivers it \
                 again; request the redrive once more when it has",
                self.consumer
            )));
        }
        Ok(())
    }

    /// Begins a transaction that leaves the cursor where it is.
    pub(crate) async fn begin_aside(&self, idle: &mut Option<Lease<D>>) -> reflex_core::Result<Open<D>> {
        let begun = Box::pin(self.table.begin_aside(idle.take(), &self.consumer)).await;
        begun.map_err(|error| self.failed("begin the transaction", error))
    }

    /// Commits a transaction that left the cursor where it is.
    pub(crate) async fn commit_aside(&self, open: Open<D>) -> reflex_core::Result<Lease<D>> {
        let committed = Box::pin(self.table.commit(open, &self.consumer)).await;
        committed.map_err(|error| self.failed("commit the transaction", error))
    }

    pub(crate) async fn commit(&self, open: Open<D>, step: Move) -> reflex_core::Result<Lease<D>> {
        lock(&self.slot).doubt(step.clone());
        let lease = self.commit_aside(open).await?;
        lock(&self.slot).committed(step);
        Ok(lease)
    }

    pub(crate) async fn roll_back(&self, open: Open<D>) -> Option<Lease<D>> {
        Box::pin(self.table.roll_back(open, &self.consumer)).await
    }

    pub(crate) fn may_keep_a_connection(&self) -> bool {
        self.table.may_keep_a_connection()
    }

    /// Looks whether the last commit took effect, unless a later one has shown that.
    pub(crate) async fn confirm(&self) -> reflex_core::Result<()> {
        if !lock(&self.slot).is_unconfirmed() {
            return Ok(());
        }
        let stored = Box::pin(self.table.get(&self.consumer)).await?;
        self.judge(stored.as_ref())
    }

    /// Moves the cursor by itself.
    async fn set(&self, cursor: &Cursor) -> reflex_core::Result<()> {
        loop {
            let in_doubt = lock(&self.slot).doubtful().cloned();
            let from = lock(&self.slot).stored().cloned().flatten();
            if let Some(from) = &from {
                check_forward(&self.consumer, from, cursor)?;
            }
            let earlier = lock(&self.slot).doubt(Move { from: from.clone(), to: cursor.clone() });
            let moved = Box::pin(self.table.replace_believed(&self.consumer, from.as_ref(), cursor));
            if moved.await.map_err(|error| self.failed("set the cursor", error))? {
                lock(&self.slot).moved(cursor.clone());
                return Ok(());
            }
            lock(&self.slot).refused(earlier);
            self.refused(in_doubt, from.as_ref()).await?;
        }
    }

    /// The cursor was not where it was believed to be. That is no error if a write of our own has come late.
    async fn refused(&self, in_doubt: Option<Cursor>, believed: Option<&Cursor>) -> reflex_core::Result<()> {
        let stored = Box::pin(self.table.get(&self.consumer)).await?;
        if in_doubt.is_some() && stored == in_doubt && stored.as_ref() != believed {
            lock(&self.slot).read(stored);
            return Ok(());
        }
        self.judge(stored.as_ref())?;
        Err(self.fenced(believed))
    }

    fn judge(&self, stored: Option<&Cursor>) -> reflex_core::Result<()> {
        let mut position = lock(&self.slot);
        let believed = position.stored().cloned().flatten();
        match position.confirm(stored) {
            Finding::Confirmed => Ok(()),
            Finding::Foreign => Err(self.fenced(believed.as_ref())),
            Finding::Undone => {
                let consumer = self.consumer.to_string();
                Err(self.failed("commit the transaction", Problem::Undone { consumer }.into()))
            }
        }
    }

    fn failed(&self, attempted: &str, error: crate::Error) -> Error {
        Error::store(format!("{attempted} of consumer `{}`", self.consumer), error)
    }

    fn fenced(&self, believed: Option<&Cursor>) -> Error {
        let believed = believed.map_or_else(|| "there was none".to_owned(), |cursor| format!("it was {cursor}"));
        let table = self.table.name();
        Error::fenced(&self.consumer).caused_by(crate::Error::from(Problem::Fenced { table, believed }))
    }

    fn not_read(&self) -> Error {
        Error::invalid(format!(
            "the cursor of the transactional consumer `{0}` was not read: the spec that runs it needs a clone of the \
             `TransactionalCursors` that made it, and nothing around it may call it other than `{0}`",
            self.consumer
        ))
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Position> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
