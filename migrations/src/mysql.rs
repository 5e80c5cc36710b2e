use std::time::Duration;

use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, SqlStr, pool::PoolConnection};

use crate::{
    Migration,
    dialect::{Driver, RECORDS, Row},
    plan::Record,
};

impl Driver for MySql {
    type Guard = PoolConnection<MySql>;

    const MIGRATIONS: &'static [Migration] = &[
        Migration {
            version: 1,
            name: "events_and_cursors",
            tables: &["events", "cursors"],
            up: include_str!("../migrations/mysql/0001_events_and_cursors.up.sql"),
            down: include_str!("../migrations/mysql/0001_events_and_cursors.down.sql"),
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
            up: include_str!("../migrations/mysql/0002_errors.up.sql"),
            down: include_str!("../migrations/mysql/0002_errors.down.sql"),
        },
    ];

    const BOOKKEEPING: &'static str = "
        create table if not exists reflex_migrations (
            version    bigint not null primary key,
            name       varchar(255) not null,
            checksum   varchar(64) not null,
            applied_at datetime(6)
        ) engine=InnoDB character set utf8mb4 collate utf8mb4_bin";

    const NOW: &'static str = "utc_timestamp(6)";

    async fn lock(pool: &MySqlPool, wait: Duration) -> sqlx::Result<Option<Self::Guard>> {
        let mut conn = pool.acquire().await?;
        // The lock is the session's, so that a session that goes back to the pool would keep it.
        conn.close_on_drop();
        let limits = format!("set autocommit = 1, lock_wait_timeout = {}", wait.as_secs());
        sqlx::raw_sql(AssertSqlSafe(limits)).execute(&mut *conn).await?;
        // Names of locks are the server's and at most 64 characters long, hence the hash.
        let got: Option<i64> =
            sqlx::query_scalar("select get_lock(concat('reflex_migrations_', sha1(coalesce(database(), ''))), ?)")
                .bind(wait.as_secs())
                .fetch_one(&mut *conn)
                .await?;
        Ok((got == Some(1)).then_some(conn))
    }

    async fn unlock(guard: Self::Guard) -> sqlx::Result<()> {
        guard.close().await
    }

    async fn execute(conn: &mut MySqlConnection, sql: SqlStr) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(drop)
    }

    async fn has_table(conn: &mut MySqlConnection, name: &str) -> sqlx::Result<bool> {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from information_schema.tables
             where table_schema = database() and table_name = ?",
        )
        .bind(name)
        .fetch_one(conn)
        .await?;
        Ok(count > 0)
    }

    async fn records(conn: &mut MySqlConnection) -> sqlx::Result<Vec<Record>> {
        let rows: Vec<Row> = sqlx::query_as(RECORDS).fetch_all(conn).await?;
        Ok(rows.into_iter().map(Record::from).collect())
    }

    fn is_busy(error: &sqlx::Error) -> bool {
        const LOCK_WAIT_TIMEOUT: u16 = 1205;
        let error = error.as_database_error();
        let error = error.and_then(|e| e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
        error.is_some_and(|e| e.number() == LOCK_WAIT_TIMEOUT)
    }
}
