use std::path::Path;

use anyhow::Result;
use reflex_sql::DialectName;
use sqlx::{
    Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::{Backend, Done, bare_multi_row_insert, bare_statements};
use crate::bench::Options;

impl Backend for Sqlite {
    const TITLE: &'static str = "SQLite";
    const KEY: &'static str = "sqlite";
    const DIALECT: DialectName = DialectName::Sqlite;
    const VERSION: &'static str = "select 'SQLite ' || sqlite_version() || ' (WAL, synchronous full)'";

    fn server_url(_options: &Options, folder: &Path) -> Option<String> {
        Some(format!("sqlite:{}?mode=rwc", folder.join("bench.db").display()))
    }

    async fn make_namespace(server: &str, _name: &str) -> Result<String> {
        Ok(server.to_owned())
    }

    async fn drop_namespace(_server: &str, _name: &str) -> Result<()> {
        Ok(())
    }

    fn options(url: &str) -> Done<SqliteConnectOptions> {
        let options: SqliteConnectOptions = url.parse()?;
        Ok(options.journal_mode(SqliteJournalMode::Wal))
    }

    fn filling(table: &str, rows: u64) -> Vec<String> {
        let insert = format!(
            r#"with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {rows})
            insert into {table} (foreign_id, type, metadata) select 'account-' || n % 1000, 1,
            cast('{{"order":' || n || ',"account":"account-' || n % 1000
            || '","amount":4200,"currency":"EUR","items":3}}' as blob) from numbers"#
        );
        vec![insert, "pragma wal_checkpoint(truncate)".to_owned()]
    }

    bare_statements! {
        page: "select id, foreign_id, timestamp, type, metadata, trace from {table} where id > ? order by id limit ?",
        cursor: "update cursors set last_event_id = ?, updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') where id = ?",
        total: "insert into totals (account, orders) values (?, ?)
            on conflict (account) do update set orders = orders + excluded.orders",
        one: "insert into {table} (foreign_id, type, timestamp, metadata, trace)
            values (?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), ?, ?)"
    }

    bare_multi_row_insert!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now')");
}
