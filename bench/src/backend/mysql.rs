use std::path::Path;

use anyhow::{Context, Result};
use reflex_sql::DialectName;
use sqlx::{Connection, MySql, MySqlConnection, mysql::MySqlConnectOptions};

use super::{Backend, Done, bare_multi_row_insert, bare_statements};
use crate::bench::Options;

impl Backend for MySql {
    const TITLE: &'static str = "MariaDB";
    const KEY: &'static str = "mariadb";
    const DIALECT: DialectName = DialectName::MySql;
    const VERSION: &'static str = "select concat('MariaDB ', version(),
        ' (innodb_flush_log_at_trx_commit ', @@innodb_flush_log_at_trx_commit, ')')";

    fn server_url(options: &Options, _folder: &Path) -> Option<String> {
        options.mariadb.clone()
    }

    async fn make_namespace(server: &str, name: &str) -> Result<String> {
        let mut conn = MySqlConnection::connect(server).await?;
        Self::run(&mut conn, format!("create database {name}")).await?;
        let (address, _) = server.rsplit_once('/').context("the URL names a database")?;
        Ok(format!("{address}/{name}"))
    }

    async fn drop_namespace(server: &str, name: &str) -> Result<()> {
        let mut conn = MySqlConnection::connect(server).await?;
        Ok(Self::run(&mut conn, format!("drop database {name}")).await?)
    }

    fn options(url: &str) -> Done<MySqlConnectOptions> {
        url.parse()
    }

    async fn queries(conn: &mut MySqlConnection) -> Done<Option<i64>> {
        let questions = "select cast((select variable_value from information_schema.global_status
            where variable_name = 'QUESTIONS') - (select variable_value from information_schema.session_status
            where variable_name = 'QUESTIONS') as signed)";
        sqlx::query_scalar(questions).fetch_one(conn).await.map(Some)
    }

    fn filling(table: &str, rows: u64) -> Vec<String> {
        let insert = format!(
            r#"insert into {table} (foreign_id, type, metadata) select concat('account-', seq % 1000), 1,
            concat('{{"order":', seq, ',"account":"account-', seq % 1000, '","amount":4200,"currency":"EUR","items":3}}')
            from seq_1_to_{rows}"#
        );
        vec![insert, format!("analyze table {table}")]
    }

    bare_statements! {
        page: "select id, foreign_id, timestamp, type, metadata, trace from {table} where id > ? order by id limit ?",
        cursor: "update cursors set last_event_id = ?, updated_at = utc_timestamp(6) where id = ?",
        total: "insert into totals (account, orders) values (?, ?)
            on duplicate key update orders = orders + values(orders)",
        one: "insert into {table} (foreign_id, type, timestamp, metadata, trace) values (?, ?, utc_timestamp(6), ?, ?)"
    }

    bare_multi_row_insert!("utc_timestamp(6)");
}
