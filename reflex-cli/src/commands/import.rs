use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use reflex_core::NewEvent;
use reflex_sql::{Dialect, EventsTable, Notify};
use sqlx::Pool;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    args::ImportArgs,
    database::{Database, wake, with_pool},
    interrupt::Interrupt,
    ndjson::{Batch, BatchOptions, parse_event, read_batches},
    output::Output,
    place::Access,
    progress,
    table::counted,
};

/// Batches that are read while one is inserted.
const READ_AHEAD: usize = 2;

/// Inserts the events of a file, and says how far it came if it does not come to the end.
pub(crate) async fn run(args: ImportArgs, interrupt: &Interrupt, output: &mut Output) -> Result<()> {
    let database = interrupt.or(Database::connect(&args.database.database_url, Access::Write)).await?;
    let done = with_pool!(database, pool => import(pool, &args, interrupt))?;
    if args.json {
        output.json(&serde_json::json!({ "imported": done.events, "lines": done.lines })).await
    } else {
        output.line(format_args!("imported {} into `{}`", counted(done.events, "event"), args.table.name)).await
    }
}

/// What is inserted and committed.
#[derive(Clone, Copy, Debug)]
struct Done {
    events: u64,
    /// Lines of the file that need not be read again.
    lines: u64,
}

async fn import<D: Dialect>(pool: &Pool<D>, args: &ImportArgs, interrupt: &Interrupt) -> Result<Done> {
    let table = interrupt.or(async { Ok(EventsTable::open(pool, args.table.name.as_str()).await?) }).await?;
    let (input, bar) = interrupt.or(open(&args.file)).await?;
    let options = BatchOptions { skip_lines: args.skip_lines, ..BatchOptions::new(args.batch_size as usize) };
    let (to, from) = mpsc::channel(READ_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read_batches(input, options, |line, _| parse_event(line), &to));
    let done = Done { events: 0, lines: args.skip_lines };
    let mut import = Import { pool, table, from, reader, bar, done, committed: None };
    let result = import.run(interrupt).await;
    if let Some(notify) = import.committed {
        wake(notify).await;
    }
    import.bar.finish_and_clear();
    let done = import.done;
    result.map(|()| done).map_err(|error| explain(error, &args.file, done))
}

/// Says what was imported, and how to go on.
fn explain(error: anyhow::Error, file: &Path, done: Done) -> anyhow::Error {
    let Done { events, lines } = done;
    let go_on = match events {
        0 => "nothing was imported".to_owned(),
        _ => format!("{} imported before, up to line {lines}; go on with --skip-lines {lines}", were(events)),
    };
    error.context(format!("import {}: {go_on}", name(file)))
}

fn were(events: u64) -> String {
    format!("{} {}", counted(events, "event"), if events == 1 { "was" } else { "were" })
}

fn name(file: &Path) -> String {
    if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Opens the file, with a progress bar that fits.
async fn open(file: &Path) -> Result<(Box<dyn Read + Send>, ProgressBar)> {
    if is_stdin(file) {
        return Ok((Box::new(io::stdin()), progress::counter("imported")));
    }
    let path: PathBuf = file.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() { Err(io::Error::from(io::ErrorKind::IsADirectory)) } else { Ok((file, metadata.len())) }
    });
    let opened = opened.await.context("wait for the file to open")?;
    let (file, len) = opened.with_context(|| format!("read {}", file.display()))?;
    let bar = progress::bytes("importing");
    bar.set_length(len);
    Ok((Box::new(file), bar))
}

struct Import<'a, D: Dialect> {
    pool: &'a Pool<D>,
    table: EventsTable<D>,
    from: mpsc::Receiver<Batch>,
    reader: JoinHandle<Result<()>>,
    bar: ProgressBar,
    done: Done,
    /// Of the last batch: what was sent for it may not be on its way yet.
    committed: Option<Notify>,
}

impl<D: Dialect> Import<'_, D> {
    /// Inserts batch after batch. Asked to end, it finishes the one in hand, so that it can say exactly how far it came.
    async fn run(&mut self, interrupt: &Interrupt) -> Result<()> {
        loop {
            let batch = interrupt.or(async { Ok(self.from.recv().await) }).await?;
            let Some(batch) = batch else {
                return (&mut self.reader).await.context("wait for the reader of the file")?;
            };
            self.insert(batch).await?;
        }
    }

    async fn insert(&mut self, batch: Batch) -> Result<()> {
        let Batch { events, end, .. } = batch;
        let count = events.len() as u64;
        let lines = format!("lines {} to {}", self.done.lines + 1, end.lines);
        let committing = self.insert_all(events).await.with_context(|| format!("insert {lines}"))?;
        committing.map_err(|error| {
            anyhow!(error)
                .context(format!("commit {lines}: whether they were inserted is not known, so look before going on"))
        })?;
        self.done = Done { events: self.done.events + count, lines: end.lines };
        let position = if self.bar.length().is_some() { end.bytes } else { self.done.events };
        self.bar.set_position(position);
        Ok(())
    }

    /// The inner error is that of the commit.
    async fn insert_all(&mut self, events: Vec<NewEvent>) -> Result<sqlx::Result<()>> {
        let mut tx = self.pool.begin().await?;
        let notify = self.table.insert_all(&mut tx, events).await?;
        if let Err(error) = tx.commit().await {
            return Ok(Err(error));
        }
        notify.clone().send();
        self.committed = Some(notify);
        Ok(Ok(()))
    }
}
