//! Other processes: this program, called again.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use reflex_core::{BufferedCursors, Event, consumer_fn};
use sqlx::{MySql, Postgres};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    runtime::Builder,
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};

use crate::{
    backend::{Backend, Db},
    machine::peak_memory,
    specs::{fresh_name, idle_consumer, metrics, run_to_head, tell_arrivals},
};

/// What this program does as another process. It writes one number per line.
#[derive(Clone, Debug, clap::Subcommand)]
#[command(hide = true)]
pub enum Child {
    /// Follows a table and tells when each event arrives.
    Follow(Follower),
    /// Reads a backlog with many consumers, one of them slow, and tells how much memory that took.
    Backlog(Backlog),
}

/// A process that follows a table.
#[derive(Clone, Debug, clap::Args)]
pub struct Follower {
    pub(crate) url: String,
    pub(crate) table: String,
    pub(crate) after: i64,
}

/// A process that reads a backlog.
#[derive(Clone, Debug, clap::Args)]
pub struct Backlog {
    pub(crate) url: String,
    pub(crate) table: String,
    pub(crate) rows: u64,
    /// The consumers that are not slow.
    pub(crate) fast: u64,
    /// How long the slow one takes for each event.
    pub(crate) delay_ms: u64,
}

/// Does it.
///
/// # Errors
///
/// If it fails.
pub fn serve(child: Child) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        match child {
            Child::Follow(follower) if follower.url.starts_with("mysql:") => follower.serve::<MySql>().await,
            Child::Follow(follower) => follower.serve::<Postgres>().await,
            Child::Backlog(backlog) => backlog.serve().await,
        }
    })
}

impl Child {
    fn args(&self) -> Vec<String> {
        match self {
            Self::Follow(Follower { url, table, after }) => {
                vec!["follow".to_owned(), url.clone(), table.clone(), after.to_string()]
            }
            Self::Backlog(Backlog { url, table, rows, fast, delay_ms }) => {
                let numbers = [rows, fast, delay_ms].map(u64::to_string);
                ["backlog", url, table].into_iter().map(str::to_owned).chain(numbers).collect()
            }
        }
    }

    /// Runs it as another process, and passes on what it tells.
    pub(crate) async fn forward(self, program: PathBuf, to: mpsc::Sender<u64>) -> Result<()> {
        let mut child = Command::new(program)
            .args(self.args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start another process")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await? {
            to.send(line.parse().with_context(|| format!("a process said {line:?}"))?).await?;
        }
        let status = child.wait().await?;
        if status.success() { Ok(()) } else { Err(anyhow!("another process failed: {status}")) }
    }
}

impl Follower {
    async fn serve<D: Backend>(self) -> Result<()> {
        let db = Db::<D>::connect(self.url).await?;
        let events = db.open(self.table.into()).await?;
        let (to, mut arrivals) = mpsc::channel(1);
        let print = async {
            while let Some(arrived) = arrivals.recv().await {
                tell(arrived)?;
            }
            bail!("nobody tells of arrivals")
        };
        tokio::select! {
            ended = tell_arrivals(events, self.after, to) => ended,
            ended = print => ended,
        }
    }
}

impl Backlog {
    async fn serve(self) -> Result<()> {
        let db = Db::<Postgres>::connect(self.url.clone()).await?;
        let (events, cursors, metrics) = (db.open(self.table.into()).await?, db.cursors().await?, metrics()?);
        let mut slow = JoinSet::new();
        let delay = Duration::from_millis(self.delay_ms);
        let crawl = consumer_fn(fresh_name(), move |_event: Event| async move {
            sleep(delay).await;
            Ok(())
        });
        let buffered = || BufferedCursors::new(cursors.clone());
        {
            let (events, cursors, metrics) = (events.clone(), buffered(), metrics.clone());
            slow.spawn(async move { run_to_head(events, cursors, crawl, &metrics, self.rows).await });
        }
        let mut fast = JoinSet::new();
        for _ in 0..self.fast {
            let (events, cursors, metrics) = (events.clone(), buffered(), metrics.clone());
            fast.spawn(async move { run_to_head(events, cursors, idle_consumer(), &metrics, self.rows).await });
        }
        while let Some(ended) = fast.join_next().await {
            ended??;
        }
        tell(peak_memory().context("the system tells the memory of a process")?)
    }
}

fn tell(number: u64) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{number}")?;
    Ok(out.flush()?)
}
