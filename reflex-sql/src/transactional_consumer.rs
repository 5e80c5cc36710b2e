use std::{fmt, future, sync::Arc, time::Duration};

use reflex_core::{Consumer, HandlerError, Input, Monitoring, Progress};
use tokio::time::{Instant, sleep_until};

use crate::{
    TransactionalCursors,
    dialect::Dialect,
    error::Problem,
    table::Lease,
    transactional::{Ledger, Moved},
    tx::{Open, Tx},
};

/// After this long without an event the connection goes back to the pool, and the last commit is looked at.
const IDLE: Duration = Duration::from_millis(100);

/// Business logic that writes its effects in the transaction that moves the cursor; see [`TransactionalCursors`].
///
/// Most handlers are closures: see [`TransactionalCursors::consumer`]. This is the form for a type of its own.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, HandlerError};
/// use reflex_sql::{TransactionalHandler, Tx};
///
/// struct Totals;
///
/// # #[cfg(feature = "sqlite")]
/// impl TransactionalHandler<sqlx::Sqlite> for Totals {
///     async fn handle(&mut self, tx: &mut Tx<sqlx::Sqlite>, event: Event) -> Result<(), HandlerError> {
///         let account = event.foreign_id();
///         sqlx::query("update totals set orders = orders + 1 where account = ?").bind(account).execute(&mut **tx).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait TransactionalHandler<D: Dialect, T = reflex_core::Event>: Send {
    /// Writes the effects of one input. `Ok` commits them.
    ///
    /// # Errors
    ///
    /// If the input cannot be handled; everything is rolled back, the cursor too.
    ///
    /// # Cancel safety
    ///
    /// Dropped when a service drops its run; the transaction is rolled back and the input is delivered again.
    fn handle(&mut self, tx: &mut Tx<D>, input: T) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// A handler that is a closure; see [`TransactionalCursors::consumer`].
#[derive(Clone)]
pub struct FnHandler<F>(F);

impl<F> FnHandler<F> {
    pub(crate) fn new(handler: F) -> Self {
        Self(handler)
    }
}

impl<D, T, F, Fut> TransactionalHandler<D, T> for FnHandler<F>
where
    D: Dialect,
    T: Send,
    F: FnMut(Tx<D>, T) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&mut self, tx: &mut Tx<D>, input: T) -> Result<(), HandlerError> {
        let (guard, home) = tx.lend();
        let handled = (self.0)(guard, input).await;
        tx.take_back(&home);
        handled
    }
}

impl<F> fmt::Debug for FnHandler<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnHandler").finish_non_exhaustive()
    }
}

/// A consumer whose cursor moves with its effects, made by [`TransactionalCursors::consumer`].
pub struct TransactionalConsumer<D: Dialect, H> {
    name: Arc<str>,
    handler: H,
    ledger: Ledger<D>,
    monitoring: Monitoring,
    /// Kept for the next transaction.
    connection: Option<Lease<D>>,
    /// When there is something to tidy up.
    idle_at: Option<Instant>,
}

impl<D: Dialect, H> TransactionalConsumer<D, H> {
    pub(crate) fn new(cursors: &TransactionalCursors<D>, name: Arc<str>, handler: H) -> Self {
        Self {
            ledger: cursors.ledger(name.clone()),
            name,
            handler,
            monitoring: Monitoring::default(),
            connection: None,
            idle_at: None,
        }
    }

    /// Sets what is watched about it. Default: [`Monitoring::default`].
    #[must_use]
    pub fn monitored(mut self, monitoring: Monitoring) -> Self {
        self.monitoring = monitoring;
        self
    }

    fn keep(&mut self, connection: Option<Lease<D>>) {
        self.idle_at = Some(Instant::now() + IDLE);
        match connection {
            Some(connection) if self.ledger.may_keep_a_connection() => self.connection = Some(connection),
            Some(connection) => connection.release(),
            None => {}
        }
    }

    /// Lets the handler work in an open transaction, which is rolled back if that fails.
    async fn handle<T>(&mut self, open: Open<D>, input: T) -> Result<Open<D>, HandlerError>
    where
        H: TransactionalHandler<D, T>,
    {
        let mut tx = Tx::new(open);
        let handled = self.handler.handle(&mut tx, input).await;
        match (handled, tx.into_open()) {
            (Ok(()), Some(open)) => Ok(open),
            (Ok(()), None) => Err(crate::Error::from(Problem::GuardKept).into()),
            (Err(error), open) => {
                if let Some(open) = open {
                    let connection = self.ledger.roll_back(open).await;
                    self.keep(connection);
                }
                Err(error)
            }
        }
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
    }

    async fn tidy_up(&mut self) -> Result<(), HandlerError> {
        self.idle_at = None;
        self.release();
        Ok(self.ledger.confirm().await?)
    }
}

impl<D, H, T> Consumer<T> for TransactionalConsumer<D, H>
where
    D: Dialect,
    H: TransactionalHandler<D, T>,
    T: Input,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn consume(&mut self, input: T) -> Result<Progress, HandlerError> {
        let (Some(first), Some(last)) = (input.events().first(), input.events().last()) else {
            return Ok(Progress::Done);
        };
        let begun = self.ledger.begin(&mut self.connection, first.id(), last.id()).await?;
        let Some(Moved { open, step }) = begun else {
            return Ok(Progress::Done);
        };
        let open = self.handle(open, input).await?;
        let connection = self.ledger.commit(open, step).await?;
        self.keep(Some(connection));
        Ok(Progress::Done)
    }

    async fn redrive(&mut self, input: T) -> Result<Progress, HandlerError> {
        if let Some(event) = input.events().last() {
            self.ledger.check_passed(event.id()).await?;
        }
        let open = self.ledger.begin_aside(&mut self.connection).await?;
        let open = self.handle(open, input).await?;
        let connection = self.ledger.commit_aside(open).await?;
        self.keep(Some(connection));
        Ok(Progress::Done)
    }

    async fn reset(&mut self) -> Result<(), HandlerError> {
        self.idle_at = None;
        self.release();
        Ok(())
    }

    async fn ready(&mut self) {
        match self.idle_at {
            Some(at) => sleep_until(at).await,
            None => future::pending().await,
        }
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        self.tidy_up().await?;
        Ok(Progress::Pending)
    }

    async fn stop(&mut self) -> Result<(), HandlerError> {
        self.tidy_up().await
    }

    fn monitoring(&self) -> Monitoring {
        self.monitoring.clone()
    }
}

impl<D: Dialect, H> fmt::Debug for TransactionalConsumer<D, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionalConsumer")
            .field("name", &self.name)
            .field("monitoring", &self.monitoring)
            .finish_non_exhaustive()
    }
}
