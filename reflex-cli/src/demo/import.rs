//! Turns commits into events: each commit and the note that it is known, in one transaction.

use std::collections::HashSet;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use reflex_core::NewEvent;
use serde::Serialize;
use sqlx::{SqliteConnection, SqlitePool};

use super::{
    change::{COMMIT, MERGE},
    data::Data,
    git::Repository,
    log::Commit,
};

/// The most commits in one transaction.
const BATCH: usize = 500;

/// Imports every commit of HEAD that is not known, and returns how many these were.
///
/// Of all known commits those without a known child are noted as tips. Commits are imported after their parents, so whatever
/// a tip can reach is known, wherever an earlier import was interrupted, and git has to read only the rest.
///
/// # Errors
///
/// If git fails or the data file cannot be written. What was imported before stays.
///
/// # Cancel safety
///
/// What was imported before the future was dropped stays.
pub(crate) async fn import(repository: &Repository, data: &Data, bar: &ProgressBar) -> Result<u64> {
    let Some(head) = repository.head().await? else {
        return Ok(0);
    };
    let boundary = repository.boundary().await?;
    let known = known_tips(&data.reader, &boundary).await.context("read the tips of the known history")?;
    if known.contains(&head) {
        return Ok(0);
    }
    if !bar.is_hidden() {
        bar.set_length(repository.count(&head, &known).await?);
    }
    let imported = import_log(repository.log(&head, &known).await?, data, bar).await?;
    set_boundary(&data.writer, &boundary).await.context("note where the history begins")?;
    Ok(imported)
}

async fn import_log(mut log: super::git::Log, data: &Data, bar: &ProgressBar) -> Result<u64> {
    let mut imported = 0;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let commit = log.next().await?;
        let ended = commit.is_none();
        batch.extend(commit);
        if batch.len() >= BATCH || ended {
            imported += import_batch(data, &batch).await.context("import commits")?;
            bar.inc(batch.len() as u64);
            batch.clear();
        }
        if ended {
            return Ok(imported);
        }
    }
}

async fn import_batch(data: &Data, commits: &[Commit]) -> Result<u64> {
    let mut tx = data.writer.begin_with("begin immediate").await?;
    let unknown = note_commits(&mut tx, commits).await?;
    move_tips(&mut tx, commits).await?;
    let unknown = commits.iter().filter(|commit| unknown.contains(&commit.sha));
    let events = unknown.map(event).collect::<Result<Vec<_>>>()?;
    let count = events.len() as u64;
    if events.is_empty() {
        tx.commit().await?;
    } else {
        let notify = data.events.insert_all(&mut *tx, events).await?;
        tx.commit().await?;
        notify.send();
    }
    Ok(count)
}

/// The metadata of a commit's event.
#[derive(Serialize)]
struct Metadata<'a> {
    author: &'a str,
    added: u64,
    deleted: u64,
    files: u64,
    parents: usize,
    subject: &'a str,
}

fn event(commit: &Commit) -> Result<NewEvent> {
    let metadata = Metadata {
        author: &commit.author,
        added: commit.added,
        deleted: commit.deleted,
        files: commit.files,
        parents: commit.parents.len(),
        subject: &commit.subject,
    };
    let event_type = if commit.is_merge() { MERGE } else { COMMIT };
    let metadata = serde_json::to_vec(&metadata).context("write a commit as JSON")?;
    Ok(NewEvent::new(&commit.sha, event_type).timestamp(commit.time).metadata(metadata))
}

/// Notes all commits as known and returns those that were not.
async fn note_commits(tx: &mut SqliteConnection, commits: &[Commit]) -> Result<HashSet<String>> {
    let insert =
        "insert into commits (sha) select value from json_each(?) where true on conflict do nothing returning sha";
    let unknown = sqlx::query_scalar(insert).bind(json(commits.iter().map(|commit| &commit.sha))?);
    Ok(unknown.fetch_all(tx).await?.into_iter().collect())
}

async fn move_tips(tx: &mut SqliteConnection, commits: &[Commit]) -> Result<()> {
    let parents: HashSet<_> = commits.iter().flat_map(|commit| &commit.parents).collect();
    let childless: Vec<_> = commits.iter().map(|commit| &commit.sha).filter(|sha| !parents.contains(sha)).collect();
    let delete = "delete from tips where sha in (select value from json_each(?))";
    sqlx::query(delete).bind(json(parents)?).execute(&mut *tx).await?;
    let insert = "insert into tips (sha) select value from json_each(?) where true on conflict do nothing";
    sqlx::query(insert).bind(json(childless)?).execute(&mut *tx).await?;
    Ok(())
}

/// A list of texts as one parameter of a statement.
fn json<'a>(shas: impl IntoIterator<Item = &'a String>) -> Result<String> {
    let shas: Vec<_> = shas.into_iter().collect();
    serde_json::to_string(&shas).context("write hashes as JSON")
}

/// The tips, or none if older history may have come in below them: a shallow clone that was deepened.
async fn known_tips(reader: &SqlitePool, boundary: &str) -> sqlx::Result<Vec<String>> {
    let stored: String = sqlx::query_scalar("select git_boundary from source").fetch_one(reader).await?;
    if stored != boundary {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("select sha from tips").fetch_all(reader).await
}

async fn set_boundary(writer: &SqlitePool, boundary: &str) -> sqlx::Result<()> {
    let update = "update source set git_boundary = ? where git_boundary <> ?";
    sqlx::query(update).bind(boundary).bind(boundary).execute(writer).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::pin,
        task::{Context, Poll},
    };

    use reflex_core::Metrics;

    use super::*;
    use crate::demo::data::Kind;

    /// Polls a future at most so often and drops it.
    async fn polled<F: Future>(future: F, times: u32) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut left = times;
        let poll = |context: &mut Context<'_>| match left {
            0 => Poll::Ready(None),
            _ => {
                left -= 1;
                future.as_mut().poll(context).map(Some)
            }
        };
        poll_fn(poll).await
    }

    fn commit(sha: u32) -> Commit {
        Commit { sha: sha.to_string(), parents: vec![(sha - 1).to_string()], ..Commit::default() }
    }

    #[tokio::test]
    async fn a_commit_is_known_with_its_event_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let data = Data::open(folder.path().join("demo.sqlite"), Kind::Git, &metrics).await.unwrap();
        let ended = "select (select count(*) from commits), (select count(*) from events),
            (select count(*) from tips), (select coalesce(max(sha + 0), 0) from tips)";
        for times in 1.. {
            let batch = [commit(2 * times - 1), commit(2 * times)];
            let imported = polled(import_batch(&data, &batch), times).await;
            let (commits, events, tips, tip): (i64, i64, i64, i64) =
                sqlx::query_as(ended).fetch_one(&data.writer).await.unwrap();
            assert_eq!((commits, tips), (events, i64::from(events > 0)), "dropped after {times} polls");
            if let Some(imported) = imported {
                assert_eq!((imported.unwrap(), tip), (2, i64::from(2 * times)));
                break;
            }
            // What was dropped before it was committed is imported in its place.
            import_batch(&data, &batch).await.unwrap();
        }
    }
}
