use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, SqlStr, Transaction};

use crate::{
    Migration,
    dialect::{Driver, RECORDS, Row},
    plan::Record,
};

/// The key of the advisory lock, chosen not to meet another's.
const LOCK: i64 = i64::from_be_bytes(*b"reflexmg");

impl Driver for Postgres {
    type Guard = Transaction<'static, Postgres>;

    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 1,
            name: "events_and_cursors",
            tables: &["events", "cursors"],
            up: include_str!("../migrations/postgres/0001_events_and_cursors.up.sql"),
            down: include_str!("../migrations/postgres/0001_events_and_cursors.down.sql"),
        },
        Migration {
            version: 2,
            name: "errors",
            tables: &[
                "consumer_errors",
                "consumer_errors_events",
                "consumer_errors_letters",
                "consumer_errors_positions",
                "consumer_errors_attempts",
            ],
            up: include_str!("../migrations/postgres/0002_errors.up.sql"),
            down: include_str!("../migrations/postgres/0002_errors.down.sql"),
        },
    ];

    const BOOKKEEPING: &'static str = "
        create table if not exists reflex_migrations (
            version    bigint primary key,
            name       text not null,
            checksum   text not null,
            applied_at timestamptz
        )";

    const NOW: &'static str = "now()";

    async fn lock(pool: &PgPool, wait: Duration) -> sqlx::Result<Option<Self::Guard>> {
        // A stricter isolation level would go on reading the state of before the wait.
        let mut tx = pool.begin_with("begin isolation level read committed").await?;
        let timeout = format!("set local lock_timeout = {}", wait.as_millis());
        sqlx::raw_sql(AssertSqlSafe(timeout)).execute(&mut *tx).await?;
        let lock = sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK);
        match lock.execute(&mut *tx).await {
            Ok(_) => Ok(Some(tx)),
            Err(error) if Self::is_busy(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn unlock(guard: Self::Guard) -> sqlx::Result<()> {
        guard.commit().await
    }

    async fn execute(conn: &mut PgConnection, sql: SqlStr) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(drop)
    }

    async fn has_table(conn: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar(
            "select exists(select from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = current_schema() and c.relname = $1)",
        )
        .bind(name)
        .fetch_one(conn)
        .await
    }

    async fn records(conn: &mut PgConnection) -> sqlx::Result<Vec<Record>> {
        let rows: Vec<Row> = sqlx::query_as(RECORDS).fetch_all(conn).await?;
        Ok(rows.into_iter().map(Record::from).collect())
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        let code = error.as_database_error().and_then(|e| e.code());
        code.as_deref() == Some(LOCK_NOT_AVAILABLE)
    }
}
