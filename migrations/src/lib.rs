//! Creates the default reflex tables, `events`, `cursors` and `consumer_errors` with those beside
//! it, as versioned migrations for Postgres, MySQL, MariaDB and SQLite.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sqlx::sqlite::SqlitePool;
//!
//! let pool = SqlitePool::connect("sqlite::memory:").await?;
//!
//! // Typically at start-up: creates what is missing, and does nothing the next time.
//! let applied = reflex_migrations::up(&pool).await?;
//! assert_eq!(applied[0].name(), "events_and_cursors");
//! assert!(reflex_migrations::up(&pool).await?.is_empty());
//!
//! sqlx::query("insert into events (foreign_id, type) values ('order-1', 1)")
//!     .execute(&pool)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`up`] creates or upgrades, [`down`] reverts, [`status`] tells what is applied, and
//! [`migrations`] gives the SQL itself, for those who use another migration tool. For tables with
//! other names, take the statements that `reflex schema` prints.
//!
//! # Guarantees
//!
//! - Any number of processes may call [`up`] at once: a lock lets one of them apply what is
//!   pending, and the others find it done. Nobody waits longer than a minute for that lock, and
//!   when nothing is pending it is not taken: then [`up`] only reads.
//! - On Postgres and SQLite a call is one transaction, so it does everything or nothing. MySQL and
//!   MariaDB cannot create tables in a transaction; what an interrupted call left there is
//!   completed by the next one.
//! - It keeps a table of its own, `reflex_migrations`, and so lives beside your own migrations. Of
//!   tables that it did not create it touches none: if there is an `events` or `cursors` already,
//!   [`up`] is an error that names it.
//! - What was applied is compared, by checksum, with what this program carries.
//!
//! On Postgres all tables are those of the connection's current schema, the first of its
//! `search_path`; on MySQL and MariaDB those of the connection's database.
//!
//! # Not supported
//!
//! Several nodes of a Galera cluster or of MySQL group replication migrating at once: their
//! `GET_LOCK` holds on one node only.
//!
//! # Features
//!
//! `postgres`, `mysql` (MariaDB too) and `sqlite`, none of them by default. TLS is your choice of
//! sqlx's features.

mod dialect;
mod error;
mod migration;
mod plan;
mod run;
mod status;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use self::{
    dialect::Dialect,
    error::Error,
    migration::Migration,
    run::{down, migrations, status, up},
    status::{State, Status},
};
