//! The databases: tables full of events, and what a service without this library would send to them.

mod mysql;
mod postgres;
mod sqlite;

use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use reflex_sql::{CursorsTable, Dialect, DialectName, EventsTable, EventsTableOptions, ddl};
use sqlx::{ColumnIndex, Connection, Database, Decode, Pool, Row, Type, pool::PoolOptions};

use crate::{bench::Options, specs::metrics};

/// As many as write at once, and some more.
const CONNECTIONS: u32 = 40;

/// The columns of an event, as a service would read them by itself.
#[derive(Debug)]
#[expect(dead_code, reason = "they are decoded to be measured")]
pub(crate) struct BareEvent {
    pub(crate) id: i64,
    pub(crate) foreign_id: String,
    pub(crate) timestamp: DateTime<Utc>,
    pub(crate) event_type: i32,
    pub(crate) metadata: Option<Vec<u8>>,
    pub(crate) trace: Option<Vec<u8>>,
}

/// What an event is inserted from.
pub(crate) struct NewRow {
    pub(crate) foreign_id: String,
    pub(crate) event_type: i32,
    pub(crate) metadata: Vec<u8>,
}

impl NewRow {
    pub(crate) fn numbered(number: u64) -> Self {
        let account = number % 1_000;
        let metadata =
            format!(r#"{{"order":{number},"account":"account-{account}","amount":4200,"currency":"EUR","items":3}}"#);
        Self { foreign_id: format!("account-{account}"), event_type: 1, metadata: metadata.into_bytes() }
    }
}

impl From<NewRow> for reflex_core::NewEvent {
    fn from(row: NewRow) -> Self {
        Self::new(row.foreign_id, row.event_type).metadata(row.metadata)
    }
}

type Done<T> = Result<T, sqlx::Error>;

/// A database that is measured. What it does by itself is what a service would do without this library.
pub(crate) trait Backend: Dialect {
    const TITLE: &'static str;
    const KEY: &'static str;
    const DIALECT: DialectName;
    /// A query for a line about the server.
    const VERSION: &'static str;

    /// The URL of the server, if there is one.
    fn server_url(options: &Options, folder: &Path) -> Option<String>;

    /// Makes a place for tables of ours and returns its URL.
    async fn make_namespace(server: &str, name: &str) -> Result<String>;

    async fn drop_namespace(server: &str, name: &str) -> Result<()>;

    fn options(url: &str) -> Done<<Self::Connection as Connection>::Options>;

    /// Options under which the server counts the queries of a connection.
    fn counted(options: <Self::Connection as Connection>::Options) -> <Self::Connection as Connection>::Options {
        options
    }

    /// How many queries the server has answered, those of this connection aside; `None` if it does not count them.
    async fn queries(_conn: &mut Self::Connection) -> Done<Option<i64>> {
        Ok(None)
    }

    /// Statements that fill a table with so many events, as [`NewRow::numbered`] has them.
    fn filling(table: &str, rows: u64) -> Vec<String>;

    fn run(conn: &mut Self::Connection, sql: String) -> impl Future<Output = Done<()>> + Send;

    fn text(conn: &mut Self::Connection, sql: &'static str) -> impl Future<Output = Done<String>> + Send;

    /// The events after this id, decoded into values of their own.
    fn page(
        conn: &mut Self::Connection,
        table: &str,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Done<Vec<BareEvent>>> + Send;

    fn move_cursor(conn: &mut Self::Connection, consumer: &str, to: i64) -> impl Future<Output = Done<()>> + Send;

    /// Adds to the total of an account in the table `totals`.
    fn add_to_total(conn: &mut Self::Connection, account: i64, by: i64) -> impl Future<Output = Done<()>> + Send;

    fn insert_one(conn: &mut Self::Connection, table: &str, row: NewRow) -> impl Future<Output = Done<()>> + Send;

    /// In one statement.
    fn insert_many(
        conn: &mut Self::Connection,
        table: &str,
        rows: Vec<NewRow>,
    ) -> impl Future<Output = Done<()>> + Send;
}

/// What is the same text in every dialect, with the placeholders of each.
macro_rules! bare_statements {
    (page: $page:literal, cursor: $cursor:literal, total: $total:literal, one: $one:literal) => {
        async fn run(conn: &mut Self::Connection, sql: String) -> $crate::backend::Done<()> {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.map(drop)
        }

        async fn text(conn: &mut Self::Connection, sql: &'static str) -> $crate::backend::Done<String> {
            sqlx::query_scalar(sql).fetch_one(conn).await
        }

        async fn page(
            conn: &mut Self::Connection,
            table: &str,
            after: i64,
            limit: u32,
        ) -> $crate::backend::Done<Vec<$crate::backend::BareEvent>> {
            let sql = format!($page, table = table);
            let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(i64::from(limit));
            query.try_map($crate::backend::decode::<Self>).fetch_all(conn).await
        }

        async fn move_cursor(conn: &mut Self::Connection, consumer: &str, to: i64) -> $crate::backend::Done<()> {
            sqlx::query($cursor).bind(to).bind(consumer.to_owned()).execute(conn).await.map(drop)
        }

        async fn add_to_total(conn: &mut Self::Connection, account: i64, by: i64) -> $crate::backend::Done<()> {
            sqlx::query($total).bind(account).bind(by).execute(conn).await.map(drop)
        }

        async fn insert_one(
            conn: &mut Self::Connection,
            table: &str,
            row: $crate::backend::NewRow,
        ) -> $crate::backend::Done<()> {
            let sql = format!($one, table = table);
            let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(row.foreign_id).bind(row.event_type);
            query.bind(row.metadata).bind(None::<Vec<u8>>).execute(conn).await.map(drop)
        }
    };
}

/// Inserts rows by one statement with a placeholder per value.
macro_rules! bare_multi_row_insert {
    ($now:literal) => {
        async fn insert_many(
            conn: &mut Self::Connection,
            table: &str,
            rows: Vec<$crate::backend::NewRow>,
        ) -> $crate::backend::Done<()> {
            let columns = "(foreign_id, type, timestamp, metadata, trace)";
            let mut insert = sqlx::QueryBuilder::<Self>::new(format!("insert into {table} {columns} "));
            insert.push_values(rows, |mut values, row| {
                values.push_bind(row.foreign_id).push_bind(row.event_type).push($now);
                values.push_bind(row.metadata).push_bind(None::<Vec<u8>>);
            });
            insert.build().execute(conn).await.map(drop)
        }
    };
}

/// By position, as somebody would do it who wants it fast.
fn decode<D: Database>(row: D::Row) -> Done<BareEvent>
where
    usize: ColumnIndex<D::Row>,
    for<'r> i64: Decode<'r, D> + Type<D>,
    for<'r> String: Decode<'r, D> + Type<D>,
    for<'r> DateTime<Utc>: Decode<'r, D> + Type<D>,
    for<'r> i32: Decode<'r, D> + Type<D>,
    for<'r> Vec<u8>: Decode<'r, D> + Type<D>,
{
    Ok(BareEvent {
        id: row.try_get(0)?,
        foreign_id: row.try_get(1)?,
        timestamp: row.try_get(2)?,
        event_type: row.try_get(3)?,
        metadata: row.try_get(4)?,
        trace: row.try_get(5)?,
    })
}

pub(crate) use {bare_multi_row_insert, bare_statements};

/// A namespace of ours in a database.
pub(crate) struct Db<D: Backend> {
    pub(crate) url: String,
    pub(crate) pool: Pool<D>,
}

impl<D: Backend> Db<D> {
    pub(crate) async fn connect(url: String) -> Result<Self> {
        let options = D::options(&url)?;
        Self::with_options(url, options).await
    }

    /// The same over connections whose queries the server counts.
    pub(crate) async fn counted(&self) -> Result<Self> {
        Self::with_options(self.url.clone(), D::counted(D::options(&self.url)?)).await
    }

    async fn with_options(url: String, options: <D::Connection as Connection>::Options) -> Result<Self> {
        // A look at each connection before it is used would be a round trip on both sides.
        let pool = PoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
        let pool = pool.connect_with(options).await.with_context(|| format!("connect to {url}"))?;
        Ok(Self { url, pool })
    }

    /// Makes the tables that are not events tables.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.run(ddl::cursors(D::DIALECT, &"cursors".into())?).await?;
        self.run("create table totals (account bigint primary key, orders bigint not null)").await
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) -> Result<()> {
        let sql = sql.into();
        let done = D::run(&mut *self.pool.acquire().await?, sql.clone()).await;
        done.with_context(|| format!("run {sql}"))
    }

    pub(crate) async fn text(&self, sql: &'static str) -> Result<String> {
        D::text(&mut *self.pool.acquire().await?, sql).await.with_context(|| format!("run {sql}"))
    }

    /// An events table with so many rows, which is made if there is none, and left alone by all.
    pub(crate) async fn filled(&self, rows: u64) -> Result<String> {
        let table = format!("events_{rows}");
        if self.run(format!("select 1 from {table} where 1 = 0")).await.is_ok() {
            return Ok(table);
        }
        self.create(&table).await?;
        for statement in D::filling(&table, rows) {
            self.run(statement).await?;
        }
        Ok(table)
    }

    /// An events table without rows, in place of one that there may be.
    pub(crate) async fn empty(&self, table: &str) -> Result<String> {
        self.run(format!("drop table if exists {table}")).await?;
        self.create(table).await?;
        Ok(table.to_owned())
    }

    async fn create(&self, table: &str) -> Result<()> {
        self.run(ddl::events(D::DIALECT, &table.into())?).await
    }

    /// With metrics of its own.
    pub(crate) async fn open(&self, options: EventsTableOptions) -> Result<EventsTable<D>> {
        Ok(EventsTable::open(&self.pool, options.metrics(&metrics()?)).await?)
    }

    pub(crate) async fn cursors(&self) -> Result<CursorsTable<D>> {
        Ok(CursorsTable::open(&self.pool, "cursors").await?)
    }
}
