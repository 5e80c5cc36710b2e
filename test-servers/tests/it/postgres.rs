use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use test_servers::{Postgres, StopMode};

use crate::runs;

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn starts_with_settings_for_tests_and_those_given() {
    let server = Postgres::options().setting("work_mem", "7MB").arg("-N17").start().unwrap();
    let mut db = connect(&server).await;
    for (setting, expected) in [
        ("fsync", "off"),
        ("max_prepared_transactions", "20"),
        ("wal_level", "logical"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", "127.0.0.1"),
        ("work_mem", "7MB"),
        ("max_connections", "17"),
    ] {
        assert_eq!(show(&mut db, setting).await, expected, "{setting}");
    }
    assert!(show(&mut db, "unix_socket_directories").await.starts_with(&parent(&server)));
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn durable_has_the_defaults_of_postgres() {
    let server = Postgres::options().durable().start().unwrap();
    let mut db = connect(&server).await;
    for (setting, expected) in [("fsync", "on"), ("synchronous_commit", "on"), ("wal_level", "replica")] {
        assert_eq!(show(&mut db, setting).await, expected, "{setting}");
    }
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn keeps_port_and_data_over_stop_kill_and_restart() {
    let server = Postgres::start().unwrap();
    let url = server.url();
    connect(&server).await.execute("create table t (n int)").await.unwrap();
    for (round, mode) in [StopMode::Smart, StopMode::Fast, StopMode::Immediate].into_iter().enumerate() {
        server.stop(mode).unwrap();
        assert_eq!(server.pid(), None);
        assert!(PgConnection::connect(&url).await.is_err());
        server.restart().unwrap();
        assert_eq!(rows(&server).await, i64::try_from(round).unwrap());
    }
    server.kill().unwrap();
    server.restart().unwrap();
    server.restart().unwrap();
    assert_eq!((rows(&server).await, server.url()), (3, url));
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn kill_ends_sessions_and_their_processes() {
    let server = Postgres::start().unwrap();
    let mut db = connect(&server).await;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut db).await.unwrap();
    let segment = shared_memory(&server);
    assert!(runs(backend) && segments().contains(&segment));
    server.kill().unwrap();
    assert!(!segments().contains(&segment));
    assert!(!runs(backend));
    assert!(db.execute("select 1").await.is_err());
    // Neither of them is an error on a server that does not run.
    server.kill().unwrap();
    server.stop(StopMode::Fast).unwrap();
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn standby_follows_and_is_in_recovery() {
    let primary = Postgres::start().unwrap();
    let standby = primary.standby().unwrap();
    let mut there = connect(&standby).await;
    let in_recovery: bool = sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut there).await.unwrap();
    assert!(in_recovery);

    connect(&primary).await.execute("create table t (n int)").await.unwrap();
    let arrived = async {
        while !exists(&mut there).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, arrived).await.expect("the standby follows");
    standby.restart().unwrap();
    connect(&standby).await;
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn drop_removes_processes_and_folder() {
    let server = Postgres::start().unwrap();
    let (pid, data) = (server.pid().unwrap(), server.data_dir());
    drop(server);
    assert!(!runs(pid));
    assert!(!data.parent().unwrap().exists());
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn a_failed_start_tells_the_log() {
    let error = Postgres::options().setting("shared_buffers", "lots").start().unwrap_err().to_string();
    assert!(error.contains(r#"invalid value for parameter "shared_buffers": "lots""#), "{error}");
}

#[test]
fn a_missing_program_fails_with_instructions() {
    let start = Command::new(env!("CARGO_BIN_EXE_test-server"))
        .arg("postgres")
        .env("REFLEX_POSTGRES_BIN_DIR", "/nowhere")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(start.stderr).unwrap();
    assert!(!start.status.success());
    for part in ["/nowhere", "postgres", "cargo xtask test", "apt-get install postgresql"] {
        assert!(said.contains(part), "{said}");
    }
}

async fn exists(db: &mut PgConnection) -> bool {
    sqlx::query_scalar("select to_regclass('t') is not null").fetch_one(db).await.unwrap()
}

async fn connect(server: &Postgres) -> PgConnection {
    PgConnection::connect(&server.url()).await.unwrap()
}

async fn show(db: &mut PgConnection, setting: &str) -> String {
    sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(db).await.unwrap()
}

/// Counts the rows, then adds one.
async fn rows(server: &Postgres) -> i64 {
    let mut db = connect(server).await;
    let count = sqlx::query_scalar("select count(*) from t").fetch_one(&mut db).await.unwrap();
    db.execute("insert into t values (1)").await.unwrap();
    count
}

fn parent(server: &Postgres) -> String {
    server.data_dir().parent().unwrap().to_str().unwrap().to_owned()
}

/// The System V shared memory segment that the running server has made.
fn shared_memory(server: &Postgres) -> String {
    let status = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
    status.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

fn segments() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
}
