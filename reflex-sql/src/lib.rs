//! Events and cursor tables for reflex on Postgres, MySQL, MariaDB and SQLite.
//!
//! A service inserts events in the transactions that change its state. Consumers, in this process and in others, follow
//! them in commit-safe order: every event whose transaction commits is delivered, in the order of the ids.
//!
//! ```
//! use reflex_core::{Event, NewEvent, Spec, consumer_fn, run};
//! use reflex_sql::{CursorsTable, EventsTable};
//! # use reflex_sql::{DialectName, ddl};
//! # #[cfg(feature = "sqlite")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
//! # for ddl in [ddl::events(DialectName::Sqlite, &"events".into())?, ddl::cursors(DialectName::Sqlite, &"cursors".into())?] {
//! #     sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&pool).await?;
//! # }
//! let events = EventsTable::open(&pool, "events").await?;
//! let cursors = CursorsTable::open(&pool, "cursors").await?;
//!
//! let mut tx = pool.begin().await?;
//! let notify = events.insert(&mut tx, NewEvent::new("order-12", 1)).await?;
//! tx.commit().await?;
//! notify.send();
//!
//! let consumer = consumer_fn("ship", |event: Event| async move {
//!     println!("shipping {}", event.foreign_id());
//!     Ok(())
//! });
//! let mut spec = Spec::new(events, cursors, consumer).to_head();
//! assert!(run(&mut spec).await.unwrap_err().is_head_reached());
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Main types
//!
//! [`EventsTable`] inserts and streams, [`CursorsTable`] keeps cursors, [`ErrorsTable`] keeps events that a consumer could not
//! handle, [`ddl`] prints the statements that create them. The crate `reflex-migrations` creates the default tables.
//! [`TransactionalCursors`] makes consumers whose effects in the database happen exactly once.
//!
//! # Guarantees
//!
//! - *Nothing is lost.* Ids are drawn at the insert and become visible at the commit, in any order. A stream stops in front
//!   of a missing id until it is proven that no transaction can still fill it. No timeout takes part in the proof.
//! - *Nobody is disturbed.* The proof reads locks; it writes nothing, and no writer fails because of a reader. Only in
//!   [`GapMode::Noop`], on MySQL without access to metadata locks, placeholders are written.
//! - *Milliseconds.* A commit wakes the streams of this process, and on Postgres those of others; see
//!   [wake-ups](EventsTable#wake-ups). What nobody told of is found by polling.
//! - *One reader.* All streams of a table in one process share one reader of its newest events.
//!
//! # Not supported
//!
//! Standbys and replicas, tables fed by logical replication, sequences with a cache: opening such a table fails and says
//! what to do. Members of a Galera cluster need [`EventsTableOptions::cluster_grace`].
//!
//! # Features
//!
//! `postgres`, `mysql` (for MariaDB too) and `sqlite`; none is on by default. TLS is a feature of sqlx that the service
//! chooses.

// Each dialect uses its part of what they share; with all of them nothing is left over.
#![cfg_attr(
    not(all(feature = "postgres", feature = "mysql", feature = "sqlite")),
    allow(dead_code, unused_imports, unused_macros)
)]

mod backfill;
mod cursors;
pub mod ddl;
mod dialect;
mod error;
mod errors;
mod events;
mod follower;
mod frontier;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod names;
mod options;
mod pack;
mod page;
mod position;
mod ring;
mod state;
mod stream;
mod table;
mod tail;
mod transactional;
mod transactional_consumer;
mod tx;
mod wake;
mod window;

pub use self::{
    cursors::{CursorsTable, StoredCursor},
    ddl::DialectName,
    dialect::{Backlog, Dialect},
    error::{Error, Result},
    errors::{ErrorStatus, ErrorsTable, StoredError, StoredLetter},
    events::{EventsTable, Notify},
    options::{CursorsTableOptions, ErrorsTableOptions, EventsTableOptions, GapMode},
    transactional::TransactionalCursors,
    transactional_consumer::{FnHandler, TransactionalConsumer, TransactionalHandler},
    tx::Tx,
};
