use std::time::Duration;

use sqlx::{SqlStr, Sqlite, SqliteConnection, SqlitePool, Transaction};

use crate::{
    Migration,
    dialect::{Driver, RECORDS, Row},
    plan::Record,
};

impl Driver for Sqlite {
    type Guard = Transaction<'static, Sqlite>;

    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 1,
            name: "events_and_cursors",
            tables: &["events", "cursors"],
            up: include_str!("../migrations/sqlite/0001_events_and_cursors.up.sql"),
            down: include_str!("../migrations/sqlite/0001_events_and_cursors.down.sql"),
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
            up: include_str!("../migrations/sqlite/0002_errors.up.sql"),
            down: include_str!("../migrations/sqlite/0002_errors.down.sql"),
        },
    ];

    const BOOKKEEPING: &'static str = "
        create table if not exists reflex_migrations (
            version    integer primary key,
            name       text not null,
            checksum   text not null,
            applied_at text
        )";

    const NOW: &'static str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

    /// Waits as long as the connection's busy timeout says, and not for `wait`: a reader may hold
    /// up the commit just as well, so the wait is around the whole attempt.
    async fn lock(pool: &SqlitePool, _: Duration) -> sqlx::Result<Option<Self::Guard>> {
        // A transaction that writes only later may then find that another has written meanwhile.
        match pool.begin_with("begin immediate").await {
            Ok(tx) => Ok(Some(tx)),
            Err(error) if Self::is_busy(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn unlock(guard: Self::Guard) -> sqlx::Result<()> {
        guard.commit().await
    }

    async fn execute(conn: &mut SqliteConnection, sql: SqlStr) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(drop)
    }

    async fn has_table(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<bool> {
        sqlx::query_scalar(
            "select exists(select 1 from sqlite_master
             where name = ? collate nocase and type <> 'trigger')",
        )
        .bind(name)
        .fetch_one(conn)
        .await
    }

    async fn records(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Record>> {
        let rows: Vec<Row> = sqlx::query_as(RECORDS).fetch_all(conn).await?;
        Ok(rows.into_iter().map(Record::from).collect())
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        const BUSY: i32 = 5;
        const LOCKED: i32 = 6;
        let code = error.as_database_error().and_then(|e| e.code());
        let code = code.and_then(|code| code.parse::<i32>().ok());
        // The low byte is the primary code, the rest says more.
        matches!(code.map(|code| code & 0xff), Some(BUSY | LOCKED))
    }
}
