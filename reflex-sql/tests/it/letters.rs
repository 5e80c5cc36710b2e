//! Stores of dead letters in namespaces of their own, as the conformance suite and the tests of this crate use them.

use reflex_core::{DeadLetter, HandlerError, Selection};
use reflex_sql::{ErrorsTable, ErrorsTableOptions, StoredLetter, ddl};
use reflex_testing::conformance::DeadLetterHarness;

use crate::database::{Backend, Namespace, Result};

/// The tables of dead letters under their default names.
pub(crate) struct Letters<D: Backend> {
    pub(crate) namespace: Namespace<D>,
    pub(crate) options: ErrorsTableOptions,
    pub(crate) table: ErrorsTable<D>,
}

pub(crate) fn options() -> ErrorsTableOptions {
    ErrorsTableOptions::new("consumer_errors")
}

impl<D: Backend> Letters<D> {
    pub(crate) async fn new(options: ErrorsTableOptions) -> Result<Self> {
        let namespace = D::namespace().await?;
        <D as Backend>::execute(&namespace.pool, &ddl::errors(D::DIALECT, &options)?).await?;
        Self::within(namespace, options).await
    }

    /// In a namespace that has the tables.
    pub(crate) async fn within(namespace: Namespace<D>, options: ErrorsTableOptions) -> Result<Self> {
        let table = ErrorsTable::open(&namespace.pool, options.clone()).await?;
        Ok(Self { namespace, options, table })
    }

    /// Another handle, as another process would open it.
    pub(crate) async fn reopen(&self) -> Result<ErrorsTable<D>> {
        Ok(ErrorsTable::open(&self.namespace.pool, self.options.clone()).await?)
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        <D as Backend>::execute(&self.namespace.pool, sql).await
    }

    pub(crate) async fn numbers(&self, sql: &str) -> Result<Vec<i64>> {
        <D as Backend>::numbers(&self.namespace.pool, sql).await
    }
}

macro_rules! dead_letter_harness {
    ($($database:ty),*) => {$(
        impl DeadLetterHarness for Letters<$database> {
            type Store = ErrorsTable<$database>;

            async fn store(&self) -> Result<Self::Store> {
                self.reopen().await
            }

            async fn open(&self, consumer: &str) -> Result<Vec<DeadLetter>> {
                let mut letters = Vec::new();
                for listed in self.table.list(Some(consumer), u32::MAX).await? {
                    let stored = self.table.get(consumer, listed.letter.event.id()).await?;
                    letters.push(stored.ok_or_else(|| HandlerError::new("a listed letter is gone"))?.letter);
                }
                Ok(letters)
            }

            async fn request(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>> {
                let requested = self.table.request(consumer, selection).await?;
                Ok(requested.into_iter().map(|stored| stored.letter).collect())
            }

            async fn discard(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>> {
                let discarded = self.table.discard(consumer, selection).await?;
                Ok(discarded.into_iter().map(|stored| stored.letter).collect())
            }

            async fn expire_claims(&self) -> Result<()> {
                let sql = "update consumer_errors_letters set claimed_until = '2001-01-01 00:00:00'";
                self.execute(sql).await
            }
        }
    )*};
}

dead_letter_harness!(sqlx::Postgres, sqlx::MySql, sqlx::Sqlite);

pub(crate) fn ids(letters: &[StoredLetter]) -> Vec<String> {
    letters.iter().map(|stored| stored.letter.event.id().to_string()).collect()
}
