//! A writer that commits an event per transaction.

use std::sync::Arc;

use anyhow::Result;
use reflex_sql::EventsTable;
use sqlx::{Pool, Transaction};
use tokio::sync::Notify;

use crate::{
    backend::{Backend, NewRow},
    latency::now,
};

/// By what events are inserted.
pub(crate) enum Writer<D: Backend> {
    Bare { table: String, wake: Arc<Notify> },
    Ours(EventsTable<D>),
}

impl<D: Backend> Writer<D> {
    pub(crate) fn bare(table: impl Into<String>) -> Self {
        Self::Bare { table: table.into(), wake: Arc::default() }
    }

    /// Inserts an event, commits it, and wakes who follows. Returns when it was committed.
    pub(crate) async fn insert(&self, pool: &Pool<D>, number: u64) -> Result<u64> {
        let mut tx = pool.begin().await?;
        let woken = self.write(&mut tx, number).await?;
        tx.commit().await?;
        let committed = now();
        match woken {
            Woken::Bare(wake) => wake.notify_one(),
            Woken::Ours(notify) => notify.send(),
        }
        Ok(committed)
    }

    /// Inserts an event and takes it back, which leaves a gap.
    pub(crate) async fn roll_back(&self, pool: &Pool<D>, number: u64) -> Result<()> {
        Ok(self.begin(pool, number).await?.rollback().await?)
    }

    /// Connects as many sessions of the pool, and lets each prepare what it inserts with. Leaves a gap.
    pub(crate) async fn warm_up(&self, pool: &Pool<D>, sessions: u64) -> Result<()> {
        let mut open = Vec::new();
        for number in 0..sessions {
            open.push(self.begin(pool, number).await?);
        }
        for tx in open {
            tx.rollback().await?;
        }
        Ok(())
    }

    async fn begin(&self, pool: &Pool<D>, number: u64) -> Result<Transaction<'static, D>> {
        let mut tx = pool.begin().await?;
        self.write(&mut tx, number).await?;
        Ok(tx)
    }

    async fn write(&self, tx: &mut D::Connection, number: u64) -> Result<Woken> {
        let row = NewRow::numbered(number);
        match self {
            Self::Bare { table, wake } => {
                D::insert_one(tx, table, row).await?;
                Ok(Woken::Bare(wake.clone()))
            }
            Self::Ours(events) => Ok(Woken::Ours(events.insert(tx, row.into()).await?)),
        }
    }
}

/// Who is to be woken after the commit.
enum Woken {
    Bare(Arc<Notify>),
    Ours(reflex_sql::Notify),
}

impl<D: Backend> Clone for Writer<D> {
    fn clone(&self) -> Self {
        match self {
            Self::Bare { table, wake } => Self::Bare { table: table.clone(), wake: wake.clone() },
            Self::Ours(events) => Self::Ours(events.clone()),
        }
    }
}
