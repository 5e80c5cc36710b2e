//! What holds on every database.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use futures_util::future::join_all;
use reflex_migrations::{Dialect, State, down, migrations, status, up};
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Row, Sqlite};
use tokio::sync::Barrier;

/// How many programs start at once.
pub(crate) const CROWD: usize = 16;

pub(crate) trait Sql: Dialect {
    async fn run(pool: &Pool<Self>, sql: &str);
    async fn number(pool: &Pool<Self>, sql: &str) -> i64;
}

macro_rules! sql {
    ($($db:ty),*) => {$(
        impl Sql for $db {
            async fn run(pool: &Pool<Self>, sql: &str) {
                let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await;
                done.unwrap_or_else(|error| panic!("{sql}: {error}"));
            }

            async fn number(pool: &Pool<Self>, sql: &str) -> i64 {
                let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(pool).await;
                row.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
            }
        }
    )*};
}

sql!(Postgres, MySql, Sqlite);

/// The environment variable's value.
pub(crate) fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run this by `cargo xtask test`"))
}

/// A name for what a test creates on a server, different in each run.
pub(crate) fn namespace(test: &str) -> String {
    format!("reflex_migrations_{test}_{}", std::process::id())
}

/// The version of the newest migration.
pub(crate) fn latest<DB: Dialect>() -> i64 {
    migrations::<DB>().len() as i64
}

pub(crate) async fn state<DB: Dialect>(pool: &Pool<DB>) -> State {
    status(pool).await.unwrap()[0].state()
}

#[track_caller]
pub(crate) fn carries_every_file<DB: Dialect>(dialect: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files: BTreeSet<_> = fs::read_dir(root.join(dialect))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    let carried = migrations::<DB>().iter().flat_map(|m| {
        let file = |way| format!("{:04}_{}.{way}.sql", m.version(), m.name());
        [(file("up"), m.up_sql().to_owned()), (file("down"), m.down_sql().to_owned())]
    });
    assert_eq!(files, carried.collect());
    let versions = migrations::<DB>().iter().map(|m| m.version());
    assert!(versions.eq(1..=migrations::<DB>().len() as i64));
}

pub(crate) async fn up_and_down<DB: Sql>(pool: &Pool<DB>) {
    assert_eq!(state(pool).await, State::Pending);
    assert!(down(pool, 0).await.unwrap().is_empty());
    for _ in 0..2 {
        let applied = up(pool).await.unwrap();
        assert_eq!(applied.len(), migrations::<DB>().len());
        assert_eq!((applied[0].version(), applied[0].name()), (1, "events_and_cursors"));
        assert!(matches!(state(pool).await, State::Applied(_)));

        DB::run(pool, "insert into events (foreign_id, type) values ('a', 1)").await;
        DB::run(pool, "insert into cursors (id, last_event_id) values ('a', 1)").await;
        assert!(up(pool).await.unwrap().is_empty());
        assert!(down(pool, latest::<DB>()).await.unwrap().is_empty());
        assert_eq!(DB::number(pool, "select count(*) from events").await, 1);
        assert_eq!(DB::number(pool, "select last_event_id from cursors").await, 1);

        let reverted = down(pool, 1).await.unwrap();
        assert_eq!(reverted.iter().map(|m| m.name()).collect::<Vec<_>>(), ["errors"]);
        assert_eq!(DB::number(pool, "select count(*) from events").await, 1);
        assert_eq!(up(pool).await.unwrap().len(), 1);
        assert_eq!(DB::number(pool, "select count(*) from consumer_errors").await, 0);

        let reverted = down(pool, 0).await.unwrap();
        assert_eq!(reverted.iter().map(|m| m.version()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(state(pool).await, State::Pending);
        for table in ["events", "cursors", "consumer_errors", "consumer_errors_letters"] {
            DB::run(pool, &format!("create table {table} (other int)")).await;
            DB::run(pool, &format!("drop table {table}")).await;
        }
    }
}

/// All pools want to migrate at once, for some rounds; what each did adds up to one migration.
pub(crate) async fn crowd<DB: Sql>(pools: Vec<Pool<DB>>) {
    for _ in 0..5 {
        let start = Arc::new(Barrier::new(pools.len()));
        let runs = pools.iter().cloned().map(|pool| {
            let start = start.clone();
            tokio::spawn(async move {
                start.wait().await;
                up(&pool).await.unwrap().len()
            })
        });
        let applied: usize = join_all(runs).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(applied, migrations::<DB>().len());
        let recorded = DB::number(&pools[0], "select count(*) from reflex_migrations").await;
        assert_eq!(recorded, latest::<DB>());
        down(&pools[0], 0).await.unwrap();
    }
}

pub(crate) async fn changed<DB: Sql>(pool: &Pool<DB>) {
    up(pool).await.unwrap();
    DB::run(pool, "update reflex_migrations set checksum = 'abc'").await;
    for error in [up(pool).await.unwrap_err(), down(pool, 0).await.unwrap_err()] {
        assert!(error.is_changed());
        let message = error.to_string();
        assert!(message.contains("migration 1 (events_and_cursors)"), "{message}");
        assert!(message.contains("checksum abc in the database"), "{message}");
    }
    assert_eq!(state(pool).await, State::Changed);
    assert_eq!(DB::number(pool, "select count(*) from events").await, 0);
}

pub(crate) async fn newer<DB: Sql>(pool: &Pool<DB>) {
    up(pool).await.unwrap();
    let row = "insert into reflex_migrations (version, name, checksum) values (99, 'x', 'abc')";
    DB::run(pool, row).await;
    for error in [up(pool).await.unwrap_err(), down(pool, 0).await.unwrap_err()] {
        assert!(error.is_newer());
        let message = error.to_string();
        assert!(message.contains("migration 99 (x)"), "{message}");
        assert!(message.contains(&format!("none after {}", latest::<DB>())), "{message}");
    }
    let found = status(pool).await.unwrap();
    assert!(matches!(found[0].state(), State::Applied(_)));
    let last = found.last().unwrap();
    assert_eq!((last.version(), last.name(), last.state()), (99, "x", State::Unknown));
}

/// Tables of somebody else are named, nothing is created beside them, and they stay as they are.
pub(crate) async fn others_tables<DB: Sql>(pool: &Pool<DB>) {
    DB::run(pool, "create table cursors (mine int)").await;
    let error = up(pool).await.unwrap_err();
    assert!(error.is_table_exists());
    assert!(error.to_string().contains("table `cursors` is already there"), "{error}");
    assert_eq!(state(pool).await, State::Pending);

    DB::run(pool, "create table events (mine int)").await;
    let error = up(pool).await.unwrap_err();
    assert!(error.to_string().contains("`events` and `cursors` are"), "{error}");
    assert_eq!(DB::number(pool, "select count(mine) from cursors").await, 0);
    assert_eq!(DB::number(pool, "select count(mine) from events").await, 0);

    DB::run(pool, "drop table cursors").await;
    DB::run(pool, "drop table events").await;
    DB::run(pool, "create table consumer_errors (mine int)").await;
    let error = up(pool).await.unwrap_err();
    assert!(error.to_string().contains("table `consumer_errors` is already there"), "{error}");
    DB::run(pool, "drop table consumer_errors").await;
    up(pool).await.unwrap();
    assert!(status(pool).await.unwrap().iter().all(|found| matches!(found.state(), State::Applied(_))));
}
