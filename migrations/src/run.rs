use std::time::Duration;

use sqlx::{AssertSqlSafe, Pool, SqlSafeStr};
use tokio::time::{Instant, sleep};

use crate::{
    Dialect, Error, Migration, Status,
    plan::{self, Goal, Record, Step},
};

/// How long anybody waits for somebody else's migration.
const WAIT: Duration = Duration::from_secs(60);
/// The pause between two attempts where the database does not wait for us.
const RETRY: Duration = Duration::from_millis(20);

/// Applies every migration that is not yet applied, and returns those in order.
///
/// Call it at start-up, from as many processes as you like: one of them does it. When nothing is
/// pending it only reads, so it needs no right to create tables then.
///
/// # Errors
///
/// - a table to be created is already there and was not made by this function
///   ([`is_table_exists`](Error::is_table_exists));
/// - an applied migration is not the one this program carries ([`is_changed`](Error::is_changed)),
///   or one that it does not know ([`is_newer`](Error::is_newer));
/// - another process holds the lock for over a minute ([`is_busy`](Error::is_busy));
/// - the database fails, or refuses.
///
/// # Cancel safety
///
/// Dropping the future undoes the call on Postgres and SQLite. On MySQL and MariaDB it may leave a
/// migration [unfinished](crate::State::Unfinished), which the next call completes. The lock is
/// given up in any case.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::SqlitePool::connect("sqlite::memory:").await?;
/// for migration in reflex_migrations::up(&pool).await? {
///     println!("applied {} {}", migration.version(), migration.name());
/// }
/// # Ok(())
/// # }
/// ```
pub async fn up<DB: Dialect>(pool: &Pool<DB>) -> Result<Vec<&'static Migration>, Error> {
    migrate(pool, Goal::Latest, WAIT).await
}

/// Reverts every applied migration whose version is above `to`, newest first, and returns those.
///
/// `down(&pool, 0)` reverts all. **This destroys what is in the tables it drops.**
/// The bookkeeping table stays.
///
/// # Errors
///
/// As [`up`], except that it looks for no tables made by others.
///
/// # Cancel safety
///
/// As [`up`]; a migration left unfinished is reverted by the next call.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::SqlitePool::connect("sqlite::memory:").await?;
/// reflex_migrations::up(&pool).await?;
/// let reverted = reflex_migrations::down(&pool, 0).await?;
/// assert_eq!(reverted.last().map(|migration| migration.version()), Some(1));
/// # Ok(())
/// # }
/// ```
pub async fn down<DB: Dialect>(pool: &Pool<DB>, to: i64) -> Result<Vec<&'static Migration>, Error> {
    migrate(pool, Goal::Back(to), WAIT).await
}

/// Tells for each migration whether it is applied; changes nothing and takes no lock.
///
/// First those that this program carries, in order, and then those that only the database knows.
///
/// # Errors
///
/// Only if the database fails. What [`up`] would refuse is a [`State`](crate::State) here.
///
/// # Cancel safety
///
/// It only reads, so it may be dropped at any time.
///
/// # Examples
///
/// ```
/// use reflex_migrations::State;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::SqlitePool::connect("sqlite::memory:").await?;
/// let status = reflex_migrations::status(&pool).await?;
/// assert_eq!(status[0].state(), State::Pending);
/// # Ok(())
/// # }
/// ```
pub async fn status<DB: Dialect>(pool: &Pool<DB>) -> Result<Vec<Status>, Error> {
    let records = until_free(WAIT, || records(pool)).await?;
    Ok(plan::statuses(DB::MIGRATIONS, &records))
}

/// The migrations that this crate carries for a database, in order of version.
///
/// Take the SQL from here to run it with a migration tool of your own; then do not call [`up`],
/// which would find tables that it did not make.
///
/// # Examples
///
/// ```
/// let first = &reflex_migrations::migrations::<sqlx::Postgres>()[0];
/// println!("-- {:04}_{}\n{}", first.version(), first.name(), first.up_sql());
/// ```
pub fn migrations<DB: Dialect>() -> &'static [Migration] {
    DB::MIGRATIONS
}

async fn migrate<DB: Dialect>(pool: &Pool<DB>, goal: Goal, wait: Duration) -> Result<Vec<&'static Migration>, Error> {
    let steps = until_free(wait, || attempt(pool, goal, wait)).await?;
    Ok(steps.into_iter().map(Step::migration).collect())
}

/// Repeats what somebody else's lock hinders, until there is no time left.
async fn until_free<T, F: Future<Output = Result<T, Error>>>(
    wait: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let deadline = Instant::now() + wait;
    loop {
        match attempt().await {
            Err(error) if error.is_busy() && Instant::now() < deadline => sleep(RETRY).await,
            result => return result,
        }
    }
}

async fn attempt<DB: Dialect>(pool: &Pool<DB>, goal: Goal, wait: Duration) -> Result<Vec<Step>, Error> {
    let steps = plan::plan(goal, DB::MIGRATIONS, &records(pool).await?)?;
    if steps.is_empty() {
        return Ok(steps);
    }
    let mut guard = lock(pool, wait).await?;
    execute::<DB>(&mut guard, "create table `reflex_migrations`", DB::BOOKKEEPING).await?;
    let steps = plan::plan(goal, DB::MIGRATIONS, &read::<DB>(&mut guard).await?)?;
    for step in &steps {
        take::<DB>(&mut guard, *step).await?;
    }
    let unlocked = DB::unlock(guard).await;
    unlocked.map_err(|e| fail::<DB>("commit the reflex migrations", e))?;
    Ok(steps)
}

async fn take<DB: Dialect>(conn: &mut DB::Connection, step: Step) -> Result<(), Error> {
    match step {
        Step::Apply(migration) => {
            refuse_others_tables::<DB>(conn, migration).await?;
            record::<DB>(conn, &insert(migration)).await?;
            apply::<DB>(conn, migration).await
        }
        Step::Resume(migration) => apply::<DB>(conn, migration).await,
        Step::Revert(migration) => revert::<DB>(conn, migration).await,
    }
}

/// The migration's record is there while its tables may be, complete or not.
async fn apply<DB: Dialect>(conn: &mut DB::Connection, m: &Migration) -> Result<(), Error> {
    let action = format!("apply reflex migration {} ({})", m.version, m.name);
    execute::<DB>(conn, &action, m.up).await?;
    record::<DB>(conn, &set_applied_at(m, DB::NOW)).await
}

async fn revert<DB: Dialect>(conn: &mut DB::Connection, m: &Migration) -> Result<(), Error> {
    record::<DB>(conn, &set_applied_at(m, "null")).await?;
    let action = format!("revert reflex migration {} ({})", m.version, m.name);
    execute::<DB>(conn, &action, m.down).await?;
    record::<DB>(conn, &delete(m)).await
}

async fn refuse_others_tables<DB: Dialect>(conn: &mut DB::Connection, migration: &Migration) -> Result<(), Error> {
    let mut found = Vec::new();
    for table in migration.tables {
        if has_table::<DB>(conn, table).await? {
            found.push(*table);
        }
    }
    if found.is_empty() { Ok(()) } else { Err(Error::table_exists(&found)) }
}

async fn lock<DB: Dialect>(pool: &Pool<DB>, wait: Duration) -> Result<DB::Guard, Error> {
    let action = "lock the reflex migrations";
    let guard = DB::lock(pool, wait).await;
    let guard = guard.map_err(|e| fail::<DB>(action, e))?;
    guard.ok_or_else(|| Error::busy(action.to_owned(), None))
}

/// The records, or none if there is no table for them yet.
async fn records<DB: Dialect>(pool: &Pool<DB>) -> Result<Vec<Record>, Error> {
    let conn = pool.acquire().await;
    let mut conn = conn.map_err(|e| fail::<DB>("connect to migrate", e))?;
    if has_table::<DB>(&mut conn, "reflex_migrations").await? { read::<DB>(&mut conn).await } else { Ok(Vec::new()) }
}

async fn read<DB: Dialect>(conn: &mut DB::Connection) -> Result<Vec<Record>, Error> {
    let records = DB::records(conn).await;
    records.map_err(|e| fail::<DB>("read table `reflex_migrations`", e))
}

async fn has_table<DB: Dialect>(conn: &mut DB::Connection, name: &str) -> Result<bool, Error> {
    let found = DB::has_table(conn, name).await;
    found.map_err(|e| fail::<DB>(format!("look for table `{name}`"), e))
}

async fn record<DB: Dialect>(conn: &mut DB::Connection, sql: &str) -> Result<(), Error> {
    execute::<DB>(conn, "write to table `reflex_migrations`", sql).await
}

async fn execute<DB: Dialect>(conn: &mut DB::Connection, action: &str, sql: &str) -> Result<(), Error> {
    let done = DB::execute(conn, AssertSqlSafe(sql).into_sql_str()).await;
    done.map_err(|e| fail::<DB>(action, e))
}

fn fail<DB: Dialect>(action: impl Into<String>, error: sqlx::Error) -> Error {
    if DB::is_busy(&error) { Error::busy(action.into(), Some(error)) } else { Error::database(action.into(), error) }
}

// The values are this crate's own, so they need no placeholders, which differ by database.

fn insert(m: &Migration) -> String {
    let (version, name, checksum) = (m.version, m.name, m.checksum());
    format!(
        "insert into reflex_migrations (version, name, checksum)
         values ({version}, '{name}', '{checksum}')"
    )
}

fn set_applied_at(m: &Migration, value: &str) -> String {
    let version = m.version;
    format!("update reflex_migrations set applied_at = {value} where version = {version}")
}

fn delete(m: &Migration) -> String {
    format!("delete from reflex_migrations where version = {}", m.version)
}

#[cfg(test)]
mod tests {
    use sqlx::{
        MySqlPool, PgPool, SqlitePool,
        sqlite::{SqliteConnectOptions, SqliteJournalMode},
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    fn server(variable: &str) -> String {
        std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run this by `cargo xtask test`"))
    }

    async fn file(folder: &tempfile::TempDir) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Delete)
            .busy_timeout(Duration::ZERO);
        SqlitePool::connect_with(options).await.unwrap()
    }

    /// Pools of their own, because some locks do not exclude within a session.
    async fn check_lock<DB: Dialect>([one, two, three]: [Pool<DB>; 3]) {
        let held = lock(&one, WAIT).await.unwrap();
        let refused = tokio::time::timeout(WAIT, lock(&two, SHORT)).await;
        let error = refused.expect("the wait ends").map(drop).unwrap_err();
        assert!(error.is_busy(), "{error:?}");
        let abandoned = until_free(WAIT, || lock(&three, WAIT));
        let abandoned = tokio::time::timeout(SHORT, abandoned).await;
        assert!(abandoned.is_err(), "two hold the lock");

        drop(held);
        let held = until_free(WAIT, || lock(&two, WAIT)).await.unwrap();
        DB::unlock(held).await.unwrap();
        until_free(WAIT, || lock(&three, WAIT)).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs Postgres: cargo xtask test"]
    async fn the_lock_excludes_on_postgres() {
        let url = server("REFLEX_TEST_POSTGRES_URL");
        let pool = async || PgPool::connect(&url).await.unwrap();
        check_lock([pool().await, pool().await, pool().await]).await;
    }

    #[tokio::test]
    #[ignore = "needs MariaDB: cargo xtask test"]
    async fn the_lock_excludes_on_mariadb() {
        let url = server("REFLEX_TEST_MARIADB_URL");
        let pool = async || MySqlPool::connect(&url).await.unwrap();
        check_lock([pool().await, pool().await, pool().await]).await;
    }

    #[tokio::test]
    async fn the_lock_excludes_on_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        check_lock([file(&folder).await, file(&folder).await, file(&folder).await]).await;
    }

    #[tokio::test]
    async fn a_reader_that_holds_up_the_commit_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pool = file(&folder).await;
        let mut reader = pool.begin().await.unwrap();
        sqlx::query("select * from sqlite_master").fetch_all(&mut *reader).await.unwrap();

        let error = migrate(&pool, Goal::Latest, SHORT).await.unwrap_err();
        assert!(error.is_busy(), "{error:?}");
        let records = until_free(WAIT, || records(&pool)).await.unwrap();
        assert!(records.is_empty());

        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { migrate(&pool, Goal::Latest, WAIT).await }
        });
        reader.rollback().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().len(), crate::migrations::<sqlx::Sqlite>().len());
    }

    #[tokio::test]
    async fn only_what_somebody_else_hinders_is_repeated() {
        let mut failures = vec![
            Error::database("third".to_owned(), sqlx::Error::PoolClosed),
            Error::busy("second".to_owned(), None),
            Error::busy("first".to_owned(), None),
        ];
        let attempt = || std::future::ready(Err::<(), _>(failures.pop().unwrap()));
        let error = until_free(WAIT, attempt).await.unwrap_err();
        assert_eq!(error.to_string(), "third");
    }
}
