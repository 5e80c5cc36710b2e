//! Databases of their own for the tests, and what most of them need.

use std::{collections::BTreeSet, env, path::Path, time::Duration};

use prometheus::Registry;
use reflex_core::Metrics;
use reflex_e2e::{Backend, Tally, Workload};
use reflex_migrations::up;
use reflex_sql::EventsTable;
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tempfile::TempDir;
use test_servers::Proxy;
use tokio::{net::lookup_host, sync::mpsc, time::sleep};

/// For what has to happen at some time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A database with the default tables, for one test.
pub(crate) struct Namespace<D: Backend> {
    pub(crate) url: String,
    pub(crate) pool: Pool<D>,
    /// How to get rid of it.
    remove: Option<(Pool<D>, String)>,
    _folder: Option<TempDir>,
}

impl Namespace<Postgres> {
    pub(crate) async fn postgres(test: &str) -> Self {
        Self::on_server("REFLEX_TEST_POSTGRES_URL", test, " with (force)").await
    }
}

impl Namespace<MySql> {
    pub(crate) async fn mariadb(test: &str) -> Self {
        Self::on_server("REFLEX_TEST_MARIADB_URL", test, "").await
    }
}

impl Namespace<Sqlite> {
    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let namespace = Self::sqlite_in(folder.path()).await;
        Self { _folder: Some(folder), ..namespace }
    }

    pub(crate) async fn sqlite_in(folder: &Path) -> Self {
        let url = format!("sqlite:{}?mode=rwc", folder.join("events.db").display());
        let pool = Sqlite::pool(&url).unwrap();
        up(&pool).await.unwrap();
        Self { url, pool, remove: None, _folder: None }
    }
}

impl<D: Backend> Namespace<D> {
    async fn on_server(variable: &str, test: &str, force: &str) -> Self {
        let server = env::var(variable);
        let server = server.unwrap_or_else(|_| panic!("{variable} is not set: run this by `cargo xtask test`"));
        Self::on(&server, test, force).await
    }

    /// On a server of the test's own.
    pub(crate) async fn alone(server: &str, test: &str) -> Self {
        Self::on(server, test, "").await
    }

    async fn on(server: &str, test: &str, force: &str) -> Self {
        let name = format!("reflex_e2e_{test}_{}", std::process::id());
        let admin = D::pool(server).unwrap();
        run::<D>(&admin, &format!("create database {name}")).await;
        let (start, _) = server.rsplit_once('/').unwrap();
        let url = format!("{start}/{name}");
        let pool = D::pool(&url).unwrap();
        up(&pool).await.unwrap();
        Self { url, pool, remove: Some((admin, format!("drop database {name}{force}"))), _folder: None }
    }

    /// A pool whose connections go through a proxy that delays them, if there is a server to be far away from.
    pub(crate) async fn far_away(&self, delay: Duration) -> (Pool<D>, Option<Proxy>) {
        if self.remove.is_none() {
            return (self.pool.clone(), None);
        }
        let (_, rest) = self.url.split_once("://").unwrap();
        let (authority, _) = rest.split_once('/').unwrap();
        let server = authority.rsplit('@').next().unwrap();
        let address = lookup_host(server).await.expect("the URL names host and port").next().unwrap();
        let proxy = Proxy::start(address).await.unwrap();
        proxy.delay(delay);
        let url = self.url.replacen(server, &proxy.addr().to_string(), 1);
        (D::pool(&url).unwrap(), Some(proxy))
    }

    pub(crate) async fn remove(self) {
        self.pool.close().await;
        if let Some((admin, statement)) = self.remove {
            run::<D>(&admin, &statement).await;
        }
    }
}

/// Runs a statement.
pub(crate) async fn run<D: Backend>(pool: &Pool<D>, sql: &str) {
    let mut conn = pool.acquire().await.unwrap();
    D::run_sql(&mut conn, sql.to_owned()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Metrics of a test's own.
pub(crate) fn metrics() -> Metrics {
    Metrics::register(&Registry::new()).unwrap()
}

/// Runs the writers; returns what they did, and the foreign ids that they say they committed.
pub(crate) async fn write<D: Backend>(
    workload: &Workload,
    pool: &Pool<D>,
    table: &EventsTable<D>,
) -> (Tally, Vec<i64>) {
    write_until(workload, sleep(workload.duration), pool, table).await
}

/// As [`write`], until `stop` is done.
pub(crate) async fn write_until<D: Backend>(
    workload: &Workload,
    stop: impl Future<Output = ()>,
    pool: &Pool<D>,
    table: &EventsTable<D>,
) -> (Tally, Vec<i64>) {
    let (committed, mut told) = mpsc::channel::<Vec<i64>>(1_000);
    let collect = async {
        let mut all = Vec::new();
        while let Some(foreign_ids) = told.recv().await {
            all.extend(foreign_ids);
        }
        all
    };
    let (tally, told) = tokio::join!(workload.run_until(stop, pool, table, committed), collect);
    (tally.expect("no writer fails because of a reader"), told)
}

/// The table holds what writers say that they committed, and nothing else.
#[track_caller]
pub(crate) fn assert_committed(told: &[i64], table: &[(i64, i64)]) {
    let told: BTreeSet<_> = told.iter().copied().collect();
    let held: BTreeSet<_> = table.iter().map(|(_, foreign_id)| *foreign_id).collect();
    assert_eq!(held.len(), table.len(), "a foreign id is in the table twice");
    let missing: Vec<_> = told.difference(&held).take(10).collect();
    let extra: Vec<_> = held.difference(&told).take(10).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
}

/// The writers did what they are for.
#[track_caller]
pub(crate) fn assert_wild(tally: &Tally) {
    assert!(tally.commits > 0 && tally.rollbacks > 0 && tally.aborts > 0 && tally.slow > 0, "{tally:?}");
    assert!(tally.undone > 0, "{tally:?}");
}
