//! A namespace of its own on each database, for one test or one case of a suite.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

use reflex_core::{HandlerError, NewEvent};
use reflex_sql::{CursorsTableOptions, Dialect, DialectName, EventsTable, EventsTableOptions, ddl};
use reflex_testing::conformance::StreamHarness;
use sqlx::{
    AssertSqlSafe, Connection, Executor, MySql, MySqlPool, PgPool, Pool, Postgres, Sqlite,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions},
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

pub(crate) type Result<T, E = HandlerError> = std::result::Result<T, E>;

/// An empty database, schema or file with a pool into it.
pub(crate) struct Namespace<D: Dialect> {
    pub(crate) pool: Pool<D>,
    /// Removes the file when dropped.
    _folder: Option<tempfile::TempDir>,
}

/// Makes namespaces on one database.
pub(crate) trait Backend: Dialect {
    const DIALECT: DialectName;

    /// Begins a transaction that writes.
    const BEGIN: &str = "begin";

    async fn namespace() -> Result<Namespace<Self>>;

    async fn execute(pool: &Pool<Self>, sql: &str) -> Result<()>;

    async fn insert(pool: &Pool<Self>, table: &EventsTable<Self>, events: Vec<NewEvent>) -> Result<()>;

    /// Runs statements in one session.
    fn run(conn: &mut Self::Connection, sql: &str) -> impl Future<Output = Result<()>> + Send;

    /// The statement that lets the next event have this id.
    fn next_id_is(id: i64) -> String;

    /// The number that a query answers.
    fn number(conn: &mut Self::Connection, sql: &str) -> impl Future<Output = Result<i64>> + Send;

    /// The numbers that a query answers.
    async fn numbers(pool: &Pool<Self>, sql: &str) -> Result<Vec<i64>>;

    /// Empties the table and begins with id 1 again.
    const RESTART: &str;
}

/// What all databases do in the same words, but for types that cannot be abstracted over.
macro_rules! statements {
    () => {
        async fn execute(pool: &Pool<Self>, sql: &str) -> Result<()> {
            pool.execute(AssertSqlSafe(sql.to_owned())).await?;
            Ok(())
        }

        async fn run(conn: &mut Self::Connection, sql: &str) -> Result<()> {
            conn.execute(AssertSqlSafe(sql.to_owned())).await?;
            Ok(())
        }

        async fn numbers(pool: &Pool<Self>, sql: &str) -> Result<Vec<i64>> {
            Ok(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(pool).await?)
        }

        async fn number(conn: &mut Self::Connection, sql: &str) -> Result<i64> {
            Ok(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await?)
        }
    };
}

/// A name that no other test of this or another process uses.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_nanos();
    format!("reflex_sql_{}_{}_{nanos}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn url(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run the test with `cargo xtask test`"))
}

impl Backend for Postgres {
    const DIALECT: DialectName = DialectName::Postgres;
    const RESTART: &str = "truncate events restart identity";

    async fn namespace() -> Result<Namespace<Self>> {
        let options: PgConnectOptions = url("REFLEX_TEST_POSTGRES_URL").parse()?;
        let schema = unique();
        let mut conn = PgConnection::connect_with(&options).await?;
        conn.execute(AssertSqlSafe(format!("create schema {schema}"))).await?;
        let pool = PgPoolOptions::new().max_connections(20);
        let pool = pool.connect_with(options.options([("search_path", schema)])).await?;
        Ok(Namespace { pool, _folder: None })
    }

    statements!();

    fn next_id_is(id: i64) -> String {
        format!("alter table events alter id restart with {id}")
    }

    async fn insert(pool: &PgPool, table: &EventsTable<Self>, events: Vec<NewEvent>) -> Result<()> {
        let mut tx = pool.begin().await?;
        let notify = table.insert_all(&mut tx, events).await?;
        tx.commit().await?;
        notify.send();
        Ok(())
    }
}

impl Backend for MySql {
    const DIALECT: DialectName = DialectName::MySql;
    const RESTART: &str = "truncate events";

    async fn namespace() -> Result<Namespace<Self>> {
        let options: MySqlConnectOptions = url("REFLEX_TEST_MARIADB_URL").parse()?;
        let database = unique();
        let mut conn = MySqlConnection::connect_with(&options).await?;
        conn.execute(AssertSqlSafe(format!("create database {database}"))).await?;
        let pool = MySqlPoolOptions::new().max_connections(20);
        let pool = pool.connect_with(options.database(&database)).await?;
        Ok(Namespace { pool, _folder: None })
    }

    statements!();

    fn next_id_is(id: i64) -> String {
        format!("alter table events auto_increment = {id}")
    }

    async fn insert(pool: &MySqlPool, table: &EventsTable<Self>, events: Vec<NewEvent>) -> Result<()> {
        let mut tx = pool.begin().await?;
        let notify = table.insert_all(&mut tx, events).await?;
        tx.commit().await?;
        notify.send();
        Ok(())
    }
}

impl Backend for Sqlite {
    const DIALECT: DialectName = DialectName::Sqlite;
    const RESTART: &str = "delete from events; delete from sqlite_sequence";
    const BEGIN: &str = "begin immediate";

    async fn namespace() -> Result<Namespace<Self>> {
        let folder = tempfile::tempdir()?;
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("events.sqlite"))
            .journal_mode(SqliteJournalMode::Wal)
            .create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await?;
        Ok(Namespace { pool, _folder: Some(folder) })
    }

    statements!();

    fn next_id_is(id: i64) -> String {
        format!("insert into sqlite_sequence (name, seq) values ('events', {})", id - 1)
    }

    async fn insert(pool: &Pool<Sqlite>, table: &EventsTable<Self>, events: Vec<NewEvent>) -> Result<()> {
        let mut tx = pool.begin_with("begin immediate").await?;
        let notify = table.insert_all(&mut tx, events).await?;
        tx.commit().await?;
        notify.send();
        Ok(())
    }
}

/// A namespace with the tables of ours under their default names.
pub(crate) async fn with_tables<D: Backend>() -> Result<Namespace<D>> {
    let namespace = D::namespace().await?;
    D::execute(&namespace.pool, &ddl::events(D::DIALECT, &EventsTableOptions::new("events"))?).await?;
    D::execute(&namespace.pool, &ddl::cursors(D::DIALECT, &CursorsTableOptions::new("cursors"))?).await?;
    Ok(namespace)
}

/// The conformance suite's view of an events table.
pub(crate) struct Events<D: Backend> {
    pub(crate) namespace: Namespace<D>,
    pub(crate) options: EventsTableOptions,
    writer: EventsTable<D>,
}

impl<D: Backend> Events<D> {
    pub(crate) async fn new(namespace: Namespace<D>, options: EventsTableOptions) -> Result<Self> {
        let writer = EventsTable::open(&namespace.pool, options.clone()).await?;
        Ok(Self { namespace, options, writer })
    }
}

macro_rules! stream_harness {
    ($($database:ty),*) => {$(
        impl StreamHarness for Events<$database> {
            type Source = EventsTable<$database>;

            async fn source(&self) -> Result<Self::Source> {
                Ok(EventsTable::open(&self.namespace.pool, self.options.clone()).await?)
            }

            async fn append(&self, event: NewEvent) -> Result<()> {
                self.append_all(vec![event]).await
            }

            async fn append_all(&self, events: Vec<NewEvent>) -> Result<()> {
                <$database>::insert(&self.namespace.pool, &self.writer, events).await
            }

            async fn append_placeholder(&self) -> Result<()> {
                let sql = "insert into events (foreign_id, type) values ('0', 0)";
                <$database>::execute(&self.namespace.pool, sql).await
            }
        }
    )*};
}

stream_harness!(Postgres, MySql, Sqlite);
