use std::process::{Command, Stdio};

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor};
use test_servers::MariaDb;

use crate::runs;

const LOCKS: &str = "select count(*) from information_schema.metadata_lock_info";

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn starts_with_settings_for_tests_and_those_given() {
    let server = MariaDb::options().setting("wait_timeout", "77").arg("--max-connections=17").start().unwrap();
    let mut db = connect(&server).await;
    for (variable, expected) in [
        ("innodb_flush_log_at_trx_commit", "2"),
        ("bind_address", "127.0.0.1"),
        ("character_set_server", "utf8mb4"),
        ("wait_timeout", "77"),
        ("max_connections", "17"),
    ] {
        assert_eq!(show(&mut db, variable).await, expected, "{variable}");
    }
    db.execute("create database other").await.unwrap();
    MySqlConnection::connect(&server.url_for("other")).await.unwrap();
    db.execute(LOCKS).await.unwrap();
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn durable_flushes_each_commit() {
    let server = MariaDb::options().durable().start().unwrap();
    assert_eq!(show(&mut connect(&server).await, "innodb_flush_log_at_trx_commit").await, "1");
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn starts_without_metadata_lock_info() {
    let server = MariaDb::options().without_metadata_lock_info().start().unwrap();
    let mut db = connect(&server).await;
    assert!(db.execute(LOCKS).await.is_err());
    db.execute("install soname 'metadata_lock_info'").await.unwrap();
    db.execute(LOCKS).await.unwrap();
}

#[tokio::test]
#[ignore = "needs MariaDB: cargo xtask test"]
async fn keeps_port_and_data_over_stop_kill_and_restart() {
    let server = MariaDb::start().unwrap();
    let url = server.url();
    connect(&server).await.execute("create table t (n int)").await.unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    assert!(MySqlConnection::connect(&url).await.is_err());
    server.restart().unwrap();
    assert_eq!(rows(&server).await, 0);

    let pid = server.pid().unwrap();
    server.kill().unwrap();
    assert!(!runs(pid));
    server.restart().unwrap();
    server.restart().unwrap();
    assert_eq!((rows(&server).await, server.url()), (1, url));
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn drop_removes_process_and_folder() {
    let server = MariaDb::start().unwrap();
    let (pid, data) = (server.pid().unwrap(), server.data_dir());
    drop(server);
    assert!(!runs(pid));
    assert!(!data.parent().unwrap().exists());
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn a_failed_start_tells_the_log() {
    let error = MariaDb::options().arg("--no-such-option").start().unwrap_err().to_string();
    assert!(error.contains("unknown option '--no-such-option'"), "{error}");
}

#[test]
fn a_missing_program_fails_with_instructions() {
    let start = Command::new(env!("CARGO_BIN_EXE_test-server"))
        .arg("mariadb")
        .env("REFLEX_MARIADB_BIN_DIR", "/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(start.stderr).unwrap();
    assert!(!start.status.success());
    for part in ["/nowhere", "mariadbd", "cargo xtask test", "apt-get install mariadb-server"] {
        assert!(said.contains(part), "{said}");
    }
}

async fn connect(server: &MariaDb) -> MySqlConnection {
    MySqlConnection::connect(&server.url()).await.unwrap()
}

async fn show(db: &mut MySqlConnection, variable: &str) -> String {
    let query = "select variable_value from information_schema.global_variables where variable_name = ?";
    sqlx::query_scalar(query).bind(variable).fetch_one(db).await.unwrap()
}

/// Counts the rows, then adds one.
async fn rows(server: &MariaDb) -> i64 {
    let mut db = connect(server).await;
    let count = sqlx::query_scalar("select count(*) from t").fetch_one(&mut db).await.unwrap();
    db.execute("insert into t values (1)").await.unwrap();
    count
}
