//! The same on PostgreSQL and MariaDB.

use std::time::Duration;

use futures_util::StreamExt;
use reflex_core::{Metrics, StreamOptions};
use reflex_sql::{EventsTable, EventsTableOptions};
use serde_json::json;
use sqlx::{Connection, Executor, MySqlConnection, PgConnection, PgPool};
use tokio::time::{sleep, timeout};

use crate::reflex::{PATIENCE, Running, fail, objects, reflex, succeed, with_input};

/// A database of its own on a server, with the default tables.
struct ServerDatabase {
    url: String,
}

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run this by `cargo xtask test`"))
}

/// The URL of another database on the same server.
fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

fn run(work: impl Future<Output = sqlx::Result<()>>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work).unwrap();
}

impl ServerDatabase {
    fn postgres(name: &str) -> Self {
        let server = server("REFLEX_TEST_POSTGRES_URL");
        run(async {
            let mut connection = PgConnection::connect(&server).await?;
            for sql in [format!("drop database if exists {name}"), format!("create database {name}")] {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
            }
            connection.close().await
        });
        Self { url: with_database(&server, name) }
    }

    fn mariadb(name: &str) -> Self {
        let server = server("REFLEX_TEST_MARIADB_URL");
        run(async {
            let mut connection = MySqlConnection::connect(&server).await?;
            for sql in [format!("drop database if exists {name}"), format!("create database {name}")] {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
            }
            connection.close().await
        });
        Self { url: with_database(&server, name).replacen("mysql:", "mariadb:", 1) }
    }

    fn reflex(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = reflex(arguments);
        command.args(["--database-url", &self.url]);
        command
    }
}

fn check(database: &ServerDatabase) {
    let message = fail(&mut database.reflex(&["tail"]), 1);
    assert!(message.contains("table `events` does not exist") && message.contains("reflex migrate"), "{message}");
    assert!(message.contains(", database `reflex_cli_all_commands`: "), "{message}");
    assert_eq!(succeed(&mut database.reflex(&["migrate"])), "applied 1 events_and_cursors\napplied 2 errors\n");
    let input: String =
        (0..2_500).map(|id| format!("{{\"type\":1,\"foreign_id\":\"{id}\",\"metadata\":[{id}]}}\n")).collect();
    let mut tail = Running::start(&mut database.reflex(&["tail", "--json"]));
    let output = with_input(&mut database.reflex(&["import", "-", "--json"]), input.as_bytes());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"imported\":2500,\"lines\":2500}\n");
    for id in 0..2_500 {
        let event = objects(&tail.line()).remove(0);
        assert_eq!((&event["foreign_id"], &event["metadata"]), (&json!(id.to_string()), &json!([id])));
    }
    let bad = with_input(&mut database.reflex(&["import", "-"]), b"{\"type\":1,\"foreign_id\":\"a\"}\n{}\n");
    assert!(String::from_utf8_lossy(&bad.stderr).contains("nothing was imported: line 2, column 2: "));
    succeed(&mut database.reflex(&["cursors", "set", "billing", "2400"]));
    let message = fail(&mut database.reflex(&["cursors", "set", "billing", "x"]), 2);
    assert!(message.contains("cursor `x` is not an integer"), "{message}");
    let message = fail(&mut database.reflex(&["cursors", "set", "billing", "1"]), 1);
    assert!(message.contains("--force"), "{message}");
    let lag = objects(&succeed(&mut database.reflex(&["lag", "--json"])));
    assert!((100..200).contains(&lag[0]["events_behind"].as_u64().unwrap()), "{lag:?}");
    fail(&mut database.reflex(&["lag", "--max-events=1"]), 3);
}

/// A writer has drawn an id and goes on; the event after it is committed.
async fn check_blocked<C: Connection>(database: &ServerDatabase, mut writer: C, mut other: C) -> sqlx::Result<()>
where
    for<'c> &'c mut C: Executor<'c, Database = C::Database>,
{
    let insert = "insert into events (foreign_id, type) values ('a', 1)";
    writer.execute(insert).await?;
    succeed(&mut database.reflex(&["cursors", "set", "billing", "1"]));
    writer.execute("begin").await?;
    writer.execute(insert).await?;
    other.execute(insert).await?;
    let lag = objects(&succeed(&mut database.reflex(&["lag", "--json"]))).remove(0);
    assert_eq!((&lag["state"], lag["blocked_by"].as_array().unwrap().len()), (&json!("blocked"), 1), "{lag}");
    assert!(succeed(&mut database.reflex(&["lag"])).contains("blocked by "));
    writer.execute("rollback").await?;
    let lag = objects(&succeed(&mut database.reflex(&["lag", "--json"]))).remove(0);
    assert_eq!((&lag["state"], &lag["blocked_by"]), (&json!("behind"), &json!([])), "{lag}");
    Ok(())
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn lag_names_who_blocks_on_postgres() {
    let database = ServerDatabase::postgres("reflex_cli_lag_blocked");
    succeed(&mut database.reflex(&["migrate"]));
    run(async {
        let connect = || PgConnection::connect(&database.url);
        check_blocked(&database, connect().await?, connect().await?).await
    });
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn lag_names_who_blocks_on_mariadb() {
    let database = ServerDatabase::mariadb("reflex_cli_lag_blocked");
    succeed(&mut database.reflex(&["migrate"]));
    run(async {
        let connect = || MySqlConnection::connect(&database.url);
        check_blocked(&database, connect().await?, connect().await?).await
    });
}

/// A stream that does not look by itself hears of what a command wrote that has ended since.
#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn commands_wake_other_processes_before_they_end() {
    let database = ServerDatabase::postgres("reflex_cli_wake_ups");
    succeed(&mut database.reflex(&["migrate"]));
    run(async {
        let pool = PgPool::connect(&database.url).await?;
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let options = EventsTableOptions::new("events").poll_interval(Duration::from_secs(60 * 60)).metrics(&metrics);
        let table = EventsTable::open(&pool, options).await.unwrap();
        let mut stream = table.open_stream(StreamOptions::new()).await.unwrap().events;
        let connected = metrics.events_table(&table.name()).wake_ups_connected;
        let hears = async {
            while connected.get() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, hears).await.expect("the stream listens");
        for number in 0..10 {
            let foreign_id = number.to_string();
            if number % 2 == 0 {
                succeed(&mut database.reflex(&["insert", "--type=1", "--foreign-id", &foreign_id]));
            } else {
                let line = format!("{{\"type\":1,\"foreign_id\":\"{foreign_id}\"}}\n");
                let output = with_input(&mut database.reflex(&["import", "-"]), line.as_bytes());
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            let event = timeout(PATIENCE, stream.next()).await.expect("the stream hears of it");
            assert_eq!(event.unwrap().unwrap().foreign_id(), foreign_id);
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn all_commands_on_postgres() {
    check(&ServerDatabase::postgres("reflex_cli_all_commands"));
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn all_commands_on_mariadb() {
    check(&ServerDatabase::mariadb("reflex_cli_all_commands"));
}
