use std::path::Path;

use anyhow::Result;
use reflex_sql::DialectName;
use sqlx::{Connection, PgConnection, Postgres, postgres::PgConnectOptions};

use super::{Backend, Done, NewRow, bare_statements};
use crate::bench::Options;

impl Backend for Postgres {
    const TITLE: &'static str = "Postgres";
    const KEY: &'static str = "postgres";
    const DIALECT: DialectName = DialectName::Postgres;
    const VERSION: &'static str = "select format('PostgreSQL %s (fsync %s, synchronous_commit %s)',
        current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'))";

    fn server_url(options: &Options, _folder: &Path) -> Option<String> {
        options.postgres.clone()
    }

    async fn make_namespace(server: &str, name: &str) -> Result<String> {
        let mut conn = PgConnection::connect(server).await?;
        Self::run(&mut conn, format!("create schema {name}")).await?;
        Ok(format!("{server}?options=-csearch_path%3D{name}"))
    }

    async fn drop_namespace(server: &str, name: &str) -> Result<()> {
        let mut conn = PgConnection::connect(server).await?;
        Ok(Self::run(&mut conn, format!("drop schema {name} cascade")).await?)
    }

    fn options(url: &str) -> Done<PgConnectOptions> {
        url.parse()
    }

    fn counted(options: PgConnectOptions) -> PgConnectOptions {
        options.options([("pg_stat_statements.track", "top")])
    }

    async fn queries(conn: &mut PgConnection) -> Done<Option<i64>> {
        let loaded = "select current_setting('shared_preload_libraries') like '%pg_stat_statements%'";
        if !sqlx::query_scalar::<_, bool>(loaded).fetch_one(&mut *conn).await? {
            return Ok(None);
        }
        Self::run(conn, "create extension if not exists pg_stat_statements schema public".to_owned()).await?;
        let calls = "select coalesce(sum(calls), 0)::bigint from public.pg_stat_statements";
        sqlx::query_scalar(calls).fetch_one(conn).await.map(Some)
    }

    fn filling(table: &str, rows: u64) -> Vec<String> {
        let insert = format!(
            r#"insert into {table} (foreign_id, type, metadata) select 'account-' || n % 1000, 1,
            convert_to('{{"order":' || n || ',"account":"account-' || n % 1000
            || '","amount":4200,"currency":"EUR","items":3}}', 'UTF8') from generate_series(1, {rows}) n"#
        );
        // So that the first reader does not write what the others only read.
        vec![insert, format!("vacuum (analyze) {table}"), "checkpoint".to_owned()]
    }

    bare_statements! {
        page: "select id, foreign_id, timestamp, type, metadata, trace from {table} where id > $1 order by id limit $2",
        cursor: "update cursors set last_event_id = $1, updated_at = now() where id = $2",
        total: "insert into totals as t (account, orders) values ($1, $2)
            on conflict (account) do update set orders = t.orders + excluded.orders",
        one: "insert into {table} (foreign_id, type, timestamp, metadata, trace) values ($1, $2, now(), $3, $4)"
    }

    async fn insert_many(conn: &mut PgConnection, table: &str, rows: Vec<NewRow>) -> Done<()> {
        let (mut foreign_ids, mut types, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            foreign_ids.push(row.foreign_id);
            types.push(row.event_type);
            metadata.push(row.metadata);
        }
        let traces = vec![None::<Vec<u8>>; types.len()];
        let sql = format!(
            "insert into {table} (foreign_id, type, timestamp, metadata, trace) select f, t, now(), m, r
             from unnest($1::text[], $2::int[], $3::bytea[], $4::bytea[]) as u (f, t, m, r)"
        );
        let insert = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(foreign_ids).bind(types).bind(metadata).bind(traces);
        insert.execute(conn).await.map(drop)
    }
}
