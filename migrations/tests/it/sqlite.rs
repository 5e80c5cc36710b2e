use std::{env, path::Path, process::Stdio, time::Duration};

use futures_util::future::join_all;
use reflex_migrations::{State, up};
use sqlx::{
    Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::suite::{self, CROWD, Sql, state};

/// Tells a test process that it is one of a crowd, and on which file.
const CHILD: &str = "REFLEX_MIGRATIONS_TEST_FILE";

struct File(TempDir);

impl File {
    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn pool(&self) -> SqlitePool {
        self.pool_with(SqliteJournalMode::Wal).await
    }

    async fn pool_with(&self, journal: SqliteJournalMode) -> SqlitePool {
        open(&self.0.path().join("test.db"), journal).await
    }
}

async fn open(path: &Path, journal: SqliteJournalMode) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(2);
    pool.connect_with(options.journal_mode(journal)).await.unwrap()
}

#[test]
fn carries_every_file() {
    suite::carries_every_file::<Sqlite>("sqlite");
}

#[tokio::test]
async fn up_and_down() {
    suite::up_and_down(&File::create().pool().await).await;
}

#[tokio::test]
async fn up_and_down_in_memory() {
    suite::up_and_down(&SqlitePool::connect("sqlite::memory:").await.unwrap()).await;
}

#[tokio::test]
async fn changed() {
    suite::changed(&File::create().pool().await).await;
}

#[tokio::test]
async fn newer() {
    suite::newer(&File::create().pool().await).await;
}

#[tokio::test]
async fn others_tables() {
    suite::others_tables(&File::create().pool().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd() {
    for journal in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let file = File::create();
        let mut pools = Vec::new();
        for _ in 0..CROWD {
            pools.push(file.pool_with(journal).await);
        }
        suite::crowd(pools).await;
    }
}

#[tokio::test]
async fn a_failure_leaves_nothing() {
    let file = File::create();
    let pool = file.pool().await;
    Sqlite::run(&pool, "create table mine (id int); create index events on mine (id)").await;
    up(&pool).await.unwrap_err();
    let tables = "select count(*) from sqlite_master where type = 'table'";
    assert_eq!(Sqlite::number(&pool, tables).await, 1);
}

#[tokio::test]
async fn nothing_pending_takes_no_lock() {
    let file = File::create();
    let pool = file.pool().await;
    up(&pool).await.unwrap();
    let writer = pool.begin_with("begin immediate").await.unwrap();
    assert!(up(&pool).await.unwrap().is_empty());
    writer.rollback().await.unwrap();
}

#[tokio::test]
async fn nothing_pending_needs_no_right_to_write() {
    let file = File::create();
    let pool = file.pool_with(SqliteJournalMode::Delete).await;
    up(&pool).await.unwrap();
    let path = file.0.path().join("test.db");
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    assert!(up(&pool).await.unwrap().is_empty());
}

/// Processes that all find the tables missing, because this one holds them up until they do.
#[tokio::test]
async fn crowd_of_processes() {
    let file = File::create();
    let pool = file.pool().await;
    let holder = pool.begin_with("begin immediate").await.unwrap();
    let mut children: Vec<_> = (0..CROWD).map(|_| spawn(&file)).collect();
    for (_, lines) in &mut children {
        next_word(lines, "ready").await;
    }
    assert_eq!(state(&pool).await, State::Pending);
    holder.commit().await.unwrap();

    let applied = join_all(children.into_iter().map(|(mut child, mut lines)| async move {
        let applied = next_word(&mut lines, "applied").await;
        assert!(child.wait().await.unwrap().success());
        applied.parse::<i64>().unwrap()
    }));
    assert_eq!(applied.await.into_iter().sum::<i64>(), suite::latest::<Sqlite>());
    assert!(matches!(state(&pool).await, State::Applied(_)));
}

fn spawn(file: &File) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "sqlite::one_process_of_the_crowd", "--nocapture"])
        .env(CHILD, file.0.path().join("test.db"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, BufReader::new(stdout).lines())
}

/// What follows the word in the next line that begins with it.
async fn next_word(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> String {
    let search = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
        panic!("a process ended without saying `{word}`");
    };
    let found = tokio::time::timeout(Duration::from_secs(60), search).await;
    found.unwrap_or_else(|_| panic!("a process never said `{word}`"))
}

/// Does nothing by itself: `crowd_of_processes` starts it many times.
#[tokio::test]
async fn one_process_of_the_crowd() {
    let Some(path) = env::var_os(CHILD) else {
        return;
    };
    let pool = open(path.as_ref(), SqliteJournalMode::Wal).await;
    println!("\nready");
    println!("applied {}", up(&pool).await.unwrap().len());
}
