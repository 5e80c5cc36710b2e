//! What all rows share: what is asked for, how large it is, and the databases.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sqlx::{MySql, Postgres};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{
    backend::{Backend, Db},
    filter::chooses,
    machine::Machine,
    report::{Report, Row},
};

/// What to measure.
#[derive(Debug, Default)]
pub struct Options {
    /// A Postgres server, by the URL of an administrator; without it there are no such rows.
    pub postgres: Option<String>,
    /// The same for MariaDB.
    pub mariadb: Option<String>,
    /// Rows are measured and shown if their id contains one of these, or all if there are none.
    pub filters: Vec<String>,
    /// How much is measured.
    pub scale: Scale,
    /// The program that serves as another process, when it is called with the arguments of a [`Child`](crate::Child).
    pub program: PathBuf,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The runs of which the median counts.
    runs: usize,
    /// Numbers of events, and durations, are divided by this.
    divisor: u64,
}

impl Scale {
    /// For figures to rely on.
    pub const FULL: Self = Self { runs: 5, divisor: 1 };
    /// A tenth of it in fewer runs, for a first look.
    pub const QUICK: Self = Self { runs: 3, divisor: 10 };
    /// For tests: only whether it works.
    pub const TINY: Self = Self { runs: 1, divisor: 1_000 };
}

impl Default for Scale {
    fn default() -> Self {
        Self::FULL
    }
}

/// One call of the benchmarks.
#[derive(Debug)]
pub struct Bench {
    options: Options,
    folder: TempDir,
    runtime: Runtime,
    /// The URL of a namespace of ours, by the name of the database.
    namespaces: RefCell<HashMap<&'static str, String>>,
    machine: RefCell<Machine>,
    rows: RefCell<Vec<Row>>,
    /// If there are some, ids are noted here, and nothing is measured.
    noted: Option<RefCell<Vec<String>>>,
}

impl Bench {
    /// Looks at the machine.
    ///
    /// # Errors
    ///
    /// If the temporary folder cannot be written, or the system does not tell what it is.
    pub fn new(options: Options) -> Result<Self> {
        let mut bench = Self::idle(options)?;
        bench.machine = Machine::inspect(bench.folder.path()).context("look at the machine")?.into();
        Ok(bench)
    }

    /// One that notes the ids of the rows and measures none.
    pub(crate) fn noting() -> Result<Self> {
        Ok(Self { noted: Some(RefCell::default()), ..Self::idle(Options::default())? })
    }

    fn idle(options: Options) -> Result<Self> {
        Ok(Self {
            options,
            folder: tempfile::tempdir().context("make a temporary folder")?,
            runtime: Builder::new_multi_thread().enable_all().build().context("start a runtime")?,
            namespaces: RefCell::default(),
            machine: RefCell::default(),
            rows: RefCell::default(),
            noted: None,
        })
    }

    pub(crate) fn into_noted(self) -> Vec<String> {
        self.noted.unwrap_or_default().into_inner()
    }

    /// Removes what was made in the databases, and tells what was measured.
    ///
    /// # Errors
    ///
    /// If a database cannot be reached.
    pub fn finish(self) -> Result<Report> {
        self.runtime.block_on(async {
            self.drop_namespace::<Postgres>().await?;
            self.drop_namespace::<MySql>().await
        })?;
        let mut machine = self.machine.into_inner();
        machine.note_load();
        Ok(Report { machine, rows: self.rows.into_inner(), peers: Vec::new() })
    }

    /// Whether to measure what yields the rows with these ids.
    pub(crate) fn wants(&self, ids: &[impl AsRef<str>]) -> bool {
        if let Some(noted) = &self.noted {
            noted.borrow_mut().extend(ids.iter().map(|id| id.as_ref().to_owned()));
            return false;
        }
        ids.iter().any(|id| chooses(&self.options.filters, id.as_ref()))
    }

    pub(crate) fn runs(&self) -> usize {
        self.options.scale.runs
    }

    /// So many events, or fewer if less is measured.
    pub(crate) fn size(&self, full: u64) -> u64 {
        (full / self.options.scale.divisor).max(10)
    }

    /// So many seconds, or fewer if less is measured.
    pub(crate) fn seconds(&self, full: f64) -> f64 {
        (full / self.options.scale.divisor as f64).max(0.05)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.options.program
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(future)
    }

    /// Runs it on a runtime of one thread.
    pub(crate) fn on_one_core<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        Builder::new_current_thread().enable_all().build().context("start a runtime")?.block_on(future)
    }

    /// Takes a row, unless only others of the same measurement are wanted.
    pub(crate) fn add(&self, row: Row) {
        if chooses(&self.options.filters, row.id()) {
            eprintln!("{row}");
            self.rows.borrow_mut().push(row);
        }
    }

    /// Measures rows with a database of this kind, if one of their ids is wanted and there is a server.
    pub(crate) fn with_database<D: Backend>(
        &self,
        ids: &[impl AsRef<str>],
        measure: impl AsyncFnOnce(Db<D>) -> Result<()>,
    ) -> Result<()> {
        if !self.wants(ids) {
            return Ok(());
        }
        self.runtime.block_on(async {
            match self.database().await? {
                Some(db) => measure(db).await,
                None => Ok(()),
            }
        })
    }

    /// A database of this kind, or `None` if there is no server.
    async fn database<D: Backend>(&self) -> Result<Option<Db<D>>> {
        let known = self.namespaces.borrow().get(D::KEY).cloned();
        let url = match (known, self.server::<D>()) {
            (Some(url), _) => url,
            (None, None) => return Ok(None),
            (None, Some(server)) => self.make_namespace::<D>(&server).await?,
        };
        Ok(Some(Db::connect(url).await?))
    }

    async fn make_namespace<D: Backend>(&self, server: &str) -> Result<String> {
        let url = D::make_namespace(server, &namespace()).await.with_context(|| format!("prepare {}", D::TITLE))?;
        self.namespaces.borrow_mut().insert(D::KEY, url.clone());
        let db = Db::<D>::connect(url.clone()).await?;
        db.prepare().await?;
        let version = db.text(D::VERSION).await?;
        self.machine.borrow_mut().servers.push(version);
        Ok(url)
    }

    async fn drop_namespace<D: Backend>(&self) -> Result<()> {
        let is_made = self.namespaces.borrow().contains_key(D::KEY);
        match self.server::<D>().filter(|_| is_made) {
            Some(server) => D::drop_namespace(&server, &namespace()).await,
            None => Ok(()),
        }
    }

    /// The URL of the server, if there is one.
    fn server<D: Backend>(&self) -> Option<String> {
        D::server_url(&self.options, self.folder.path())
    }
}

fn namespace() -> String {
    format!("reflex_bench_{}", std::process::id())
}
