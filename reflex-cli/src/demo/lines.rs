//! Turns the lines of an NDJSON file into events: the events and how far the file was read, in one transaction.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use chrono::DateTime;
use indicatif::ProgressBar;
use reflex_core::NewEvent;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{change::COMMIT, data::Data};
use crate::ndjson::{BadLine, Batch, BatchOptions, Position, object_start, parse_event, read_batches};

/// The most lines in one transaction.
const BATCH: usize = 500;

/// Imports the lines that were appended since the last time, and returns how many events they are.
///
/// # Errors
///
/// If a line is not a JSON object, the file is not the one that was read before, or the data file cannot be written. What
/// was imported before stays.
///
/// # Cancel safety
///
/// What was imported before the future was dropped stays.
pub(crate) async fn import(file: &Path, data: &Data, bar: &ProgressBar, only_ended_lines: bool) -> Result<u64> {
    let before = read_source(data).await.context("read how far the file was imported")?;
    let (to, mut batches) = mpsc::channel(2);
    let reader = tokio::task::spawn_blocking({
        let (path, bar) = (file.to_owned(), bar.clone());
        move || read(&path, before, only_ended_lines, &bar, &to)
    });
    let mut imported = 0;
    while let Some(batch) = batches.recv().await {
        let end = batch.end.bytes;
        imported += import_batch(data, batch).await.context("import lines")?;
        bar.set_position(end);
    }
    reader.await.context("wait for the reader of the file")??;
    Ok(imported)
}

/// How far the file was imported, and what the last line ended with.
#[derive(Debug)]
struct Source {
    position: Position,
    last: Vec<u8>,
}

async fn read_source(data: &Data) -> sqlx::Result<Source> {
    let select = "select file_lines, file_bytes, file_last from source";
    let (lines, bytes, last): (i64, i64, Vec<u8>) = sqlx::query_as(select).fetch_one(&data.reader).await?;
    Ok(Source { position: Position { lines: lines.unsigned_abs(), bytes: bytes.unsigned_abs() }, last })
}

async fn import_batch(data: &Data, batch: Batch) -> Result<u64> {
    let count = batch.events.len() as u64;
    let mut tx = data.writer.begin_with("begin immediate").await?;
    let notify = data.events.insert_all(&mut *tx, batch.events).await?;
    sqlx::query("update source set file_lines = ?, file_bytes = ?, file_last = ?")
        .bind(i64::try_from(batch.end.lines)?)
        .bind(i64::try_from(batch.end.bytes)?)
        .bind(batch.last)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    notify.send();
    Ok(count)
}

fn read(
    path: &PathBuf,
    before: Source,
    only_ended_lines: bool,
    bar: &ProgressBar,
    to: &mpsc::Sender<Batch>,
) -> Result<()> {
    let context = || format!("read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    bar.set_length(file.metadata().with_context(context)?.len());
    let start = resume(&mut file, before).with_context(context)?;
    let options = BatchOptions { start, only_ended_lines, ..BatchOptions::new(BATCH) };
    read_batches(file, options, any_object, to).with_context(|| path.display().to_string())
}

/// Goes to where the last import ended.
fn resume(file: &mut File, before: Source) -> Result<Position> {
    let Source { mut position, last } = before;
    file.seek(SeekFrom::Start(position.bytes.saturating_sub(last.len() as u64)))?;
    let mut there = vec![0; last.len()];
    if let Err(error) = file.read_exact(&mut there)
        && error.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return Err(error.into());
    }
    let ended_with_file = !last.is_empty() && !last.ends_with(b"\n");
    let mut next = [0];
    let is_extended = ended_with_file && file.read(&mut next)? == 1;
    if there != last || (is_extended && next != *b"\n") {
        bail!(
            "line {} is not what was imported before: lines may be appended, not changed; delete the data file to start over",
            position.lines
        );
    }
    position.bytes += u64::from(is_extended);
    Ok(position)
}

/// Takes an event as it is, and makes one of any other object.
fn any_object(line: &[u8], number: u64) -> Result<NewEvent, BadLine> {
    if let Ok(event) = parse_event(line) {
        return Ok(event);
    }
    object_start(line)?;
    let object: Map<String, Value> = serde_json::from_slice(line)?;
    let event_type = object.get("type").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
    let foreign_id = match object.get("foreign_id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => format!("line-{number}"),
    };
    let event_type = event_type.filter(|&number| number != 0 || foreign_id != "0").unwrap_or(COMMIT);
    let event = NewEvent::new(foreign_id, event_type).metadata(line.trim_ascii());
    let time = object.get("timestamp").and_then(Value::as_str).map(DateTime::parse_from_rfc3339);
    Ok(match time {
        Some(Ok(time)) => event.timestamp(time.to_utc()),
        _ => event,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_object_is_an_event() {
        let event = any_object(br#"{"type":7,"foreign_id":"a","metadata":{"x":1}}"#, 1).unwrap();
        assert_eq!(event, NewEvent::new("a", 7).metadata(br#"{"x":1}"#));
        let event = any_object(b" {\"author\":\"Ann\",\"type\":\"x\"}\r", 3).unwrap();
        assert_eq!(event, NewEvent::new("line-3", COMMIT).metadata(br#"{"author":"Ann","type":"x"}"#));
        let event = any_object(br#"{"foreign_id":0,"type":0}"#, 3).unwrap();
        assert_eq!(event.parts().event_type.0, COMMIT);
        let event = any_object(br#"{"foreign_id":12,"timestamp":"2026-01-31T12:00:00Z"}"#, 3).unwrap();
        assert_eq!(event.parts().timestamp.unwrap().to_rfc3339(), "2026-01-31T12:00:00+00:00");
        assert_eq!(any_object(b"{\"a\":}", 3).unwrap_err().column, 6);
        assert_eq!(any_object(b"12", 3).unwrap_err().column, 1);
    }

    #[track_caller]
    fn check_resume(content: &str, last: &str, bytes: u64, expected: Option<u64>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let before = Source { position: Position { lines: 1, bytes }, last: last.into() };
        let position = resume(&mut file, before);
        assert_eq!(position.map(|position| position.bytes).ok(), expected);
    }

    #[test]
    fn reading_goes_on_only_in_a_file_that_was_appended_to() {
        check_resume("{}\n{}\n", "", 0, Some(0));
        check_resume("{}\n{}\n", "{}\n", 3, Some(3));
        check_resume("{}", "{}", 2, Some(2));
        check_resume("{}\n{}", "{}", 2, Some(3));
        check_resume("{}x", "{}", 2, None);
        check_resume("[]\n{}\n", "{}\n", 3, None);
        check_resume("{", "{}\n", 3, None);
    }
}
