//! The SQLite file of the demo: the events, the cursors, what is known of the source, and the results.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use reflex_core::Metrics;
use reflex_sql::{CursorsTable, CursorsTableOptions, EventsTable, EventsTableOptions};
use sqlx::{
    Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// Marks the file as one of the demo's, in its header: "refl".
const APPLICATION_ID: i32 = 0x7265_666c;
/// How long a write waits for somebody who looks at the file with another tool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// One for each stream, and some for questions.
const READERS: u32 = 8;

const TABLES: &str = "
    create table if not exists source (
        kind         text not null,
        git_boundary text not null default '',
        file_bytes   integer not null default 0,
        file_lines   integer not null default 0,
        file_last    blob not null default x''
    );
    create table if not exists commits (sha text primary key) without rowid;
    create table if not exists tips (sha text primary key) without rowid;
    create table if not exists authors (
        author    text primary key,
        commits   integer not null,
        added     integer not null,
        deleted   integer not null,
        last_seen text not null
    ) without rowid;
    create table if not exists commit_days (event_id integer primary key, day text not null);
    create index if not exists commit_days_day on commit_days (day);
    create view if not exists days as select day, count(*) as commits from commit_days group by day;
    create table if not exists merges (
        event_id integer primary key,
        author   text not null,
        subject  text not null
    );";

/// What the events of a data file are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Git,
    Lines,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Lines => "file",
        }
    }
}

/// An open data file, which no other demo has open.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) path: PathBuf,
    pub(crate) events: EventsTable<Sqlite>,
    pub(crate) cursors: CursorsTable<Sqlite>,
    /// Has a single connection: SQLite has one writer at a time, and a queue in here is fairer than its lock.
    pub(crate) writer: SqlitePool,
    pub(crate) reader: SqlitePool,
    _lock: std::sync::Arc<File>,
}

impl Data {
    /// Opens the file, and creates it first if it is missing.
    ///
    /// # Errors
    ///
    /// If another demo has it open, it cannot be written, or it is something else.
    pub(crate) async fn open(path: PathBuf, kind: Kind, metrics: &Metrics) -> Result<Self> {
        let context = || format!("open the data file {}", path.display());
        let lock = lock(path.clone()).await?;
        let options = options(&path);
        let writers = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        let writer = writers.connect_with(options.clone().create_if_missing(true)).await;
        let writer = writer.with_context(|| format!("{}; name another one with --data FILE", context()))?;
        prepare(&writer, kind).await.with_context(context)?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
        let reader = readers.connect_with(options).await.with_context(context)?;
        let events = EventsTable::open(&reader, EventsTableOptions::new("events").metrics(metrics)).await;
        let cursors = CursorsTable::open(&writer, CursorsTableOptions::new("cursors").metrics(metrics)).await;
        Ok(Self {
            events: events.with_context(context)?,
            cursors: cursors.with_context(context)?,
            writer,
            reader,
            path,
            _lock: std::sync::Arc::new(lock),
        })
    }

    /// Closes the file, which merges SQLite's log into it.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A crash of the process loses nothing that was committed; a crash of the machine may lose the last moments, and then both
/// the cursor and what it stands for.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Takes a lock that the system gives up with the process, however it ends.
async fn lock(data: PathBuf) -> Result<File> {
    let mut name = OsString::from(&data);
    name.push(".lock");
    let name = PathBuf::from(name);
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(&name)
            .with_context(|| format!("create {}; name another data file with --data FILE", name.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another `reflex demo` is using the data file {}: stop it, or name another one with --data FILE",
                data.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", name.display())),
        }
    });
    locked.await.context("wait for the lock")?
}

async fn prepare(writer: &SqlitePool, kind: Kind) -> Result<()> {
    let mut tx = writer.begin_with("begin immediate").await?;
    let id: i32 = sqlx::query_scalar("pragma application_id").fetch_one(&mut *tx).await?;
    let tables: i64 = sqlx::query_scalar("select count(*) from sqlite_master").fetch_one(&mut *tx).await?;
    if tables > 0 && id != APPLICATION_ID {
        bail!("it is an SQLite database, but not one of `reflex demo`; name another file with --data FILE");
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("pragma application_id = {APPLICATION_ID}"))).execute(&mut *tx).await?;
    sqlx::raw_sql(TABLES).execute(&mut *tx).await?;
    let insert = "insert into source (kind) select ? where not exists (select 1 from source)";
    sqlx::query(insert).bind(kind.name()).execute(&mut *tx).await?;
    let stored: String = sqlx::query_scalar("select kind from source").fetch_one(&mut *tx).await?;
    if stored != kind.name() {
        bail!("it holds the events of another kind of source ({stored}); name another file with --data FILE");
    }
    tx.commit().await?;
    reflex_migrations::up(writer).await?;
    Ok(())
}
