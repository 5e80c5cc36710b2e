use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::SqlSafeStr;
use sqlx_core::transaction::TransactionManager;

use crate::{dialect::Dialect, events::Notify, table::Lease};

/// The transaction that a transactional consumer hands to its handler: the cursor has moved in it already.
///
/// It is the connection: `&mut *tx` goes where sqlx wants an executor, `&mut tx` where this crate wants a connection, as in
/// [`EventsTable::insert`](crate::EventsTable::insert). The consumer commits it when the handler returns `Ok`, and rolls it
/// back when the handler fails or is dropped.
///
/// A handler that is a closure owns the guard and must have dropped it when it returns: nothing is committed, and the run
/// ends with an error, if it was moved to where it lives longer, such as a spawned task.
///
/// A statement that fails may have ended the transaction, whatever the handler does about it: on Postgres any, elsewhere
/// one that lost a deadlock. Let the handler fail with it, or run the statement in a savepoint, which
/// [`Connection::begin`](sqlx::Connection::begin) makes. Do not `commit` or `rollback` by a statement of your own.
pub struct Tx<D: Dialect> {
    /// `None` while it is lent, and when it was not given back.
    open: Option<Open<D>>,
    home: Option<Home<D>>,
}

/// Where a guard that was lent puts the transaction when it is dropped.
pub(crate) type Home<D> = Arc<Mutex<Option<Open<D>>>>;

impl<D: Dialect> Tx<D> {
    pub(crate) fn new(open: Open<D>) -> Self {
        Self { open: Some(open), home: None }
    }

    /// Wakes the streams of a table once the transaction is committed: for what
    /// [`EventsTable::insert`](crate::EventsTable::insert) returns.
    pub fn on_commit(&mut self, notify: Notify) {
        self.open_mut().on_commit.push(notify);
    }

    /// A guard that gives the transaction to its home, where [`take_back`](Tx::take_back) looks for it.
    pub(crate) fn lend(&mut self) -> (Self, Home<D>) {
        let home = Home::<D>::default();
        (Self { open: self.open.take(), home: Some(home.clone()) }, home)
    }

    /// There is nothing to take if the guard is still alive.
    pub(crate) fn take_back(&mut self, home: &Home<D>) {
        self.open = home.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn into_open(mut self) -> Option<Open<D>> {
        self.open.take()
    }

    fn open_mut(&mut self) -> &mut Open<D> {
        self.open.as_mut().expect("a guard that can be reached holds the transaction")
    }
}

impl<D: Dialect> Deref for Tx<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.open.as_ref().expect("a guard that can be reached holds the transaction").lease()
    }
}

impl<D: Dialect> DerefMut for Tx<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.open_mut().conn()
    }
}

impl<D: Dialect> Drop for Tx<D> {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            *home.lock().unwrap_or_else(PoisonError::into_inner) = self.open.take();
        }
    }
}

impl<D: Dialect> fmt::Debug for Tx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

/// An open transaction on a connection of its own. Rolled back when dropped.
pub(crate) struct Open<D: Dialect> {
    lease: Option<Lease<D>>,
    on_commit: Vec<Notify>,
}

impl<D: Dialect> Open<D> {
    pub(crate) async fn begin(lease: Lease<D>) -> Result<Self, sqlx::Error> {
        let mut open = Self { lease: Some(lease), on_commit: Vec::new() };
        D::TransactionManager::begin(open.conn(), Some(D::BEGIN_WRITING.into_sql_str())).await?;
        Ok(open)
    }

    pub(crate) fn conn(&mut self) -> &mut D::Connection {
        self.lease.as_mut().expect("it is there until the transaction ends")
    }

    /// Commits, wakes who waits for that, and returns the connection.
    pub(crate) async fn commit(mut self) -> Result<Lease<D>, sqlx::Error> {
        if let Err(error) = D::TransactionManager::commit(self.conn()).await {
            if D::SHARES_POOL {
                self.rollback().await.map(Lease::release).unwrap_or_default();
            }
            return Err(error);
        }
        std::mem::take(&mut self.on_commit).into_iter().for_each(Notify::send);
        Ok(self.end())
    }

    pub(crate) async fn rollback(mut self) -> Result<Lease<D>, sqlx::Error> {
        match D::TransactionManager::rollback(self.conn()).await {
            Err(_) if D::SHARES_POOL => self.rollback_again().await?,
            done => done?,
        }
        Ok(self.end())
    }

    /// SQLite ends a transaction by itself, on a full disk for example. Its driver then takes every further one on this
    /// connection, which stays in the pool, for a nested one. A savepoint outside of a transaction begins one to roll back.
    async fn rollback_again(&mut self) -> Result<(), sqlx::Error> {
        D::TransactionManager::begin(self.conn(), None).await?;
        D::TransactionManager::rollback(self.conn()).await?;
        D::TransactionManager::rollback(self.conn()).await
    }

    fn lease(&self) -> &Lease<D> {
        self.lease.as_ref().expect("it is there until the transaction ends")
    }

    fn end(mut self) -> Lease<D> {
        self.lease.take().expect("it is there until the transaction ends")
    }
}

impl<D: Dialect> Drop for Open<D> {
    fn drop(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            D::TransactionManager::start_rollback(&mut lease);
        }
    }
}
