//! Many rows by `COPY`, which takes about half of the client's time that a `SELECT` does.

use std::future::ready;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use reflex_core::EventParts;
use sqlx::PgConnection;
use sqlx_core::bytes::Bytes;

use crate::{
    Result,
    dialect::{EventsSql, read_rows},
    error::Problem,
    page::{Entry, Range, Scan},
};

/// Before the first row stand a signature of 11 bytes, flags, and the length of an extension.
const HEADER: usize = 19;
/// Stands after the last row, in place of the number of its columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const COLUMNS: [u8; 2] = 6_i16.to_be_bytes();
/// Timestamps count from the year 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(super) async fn scan(
    conn: &mut PgConnection,
    sql: &EventsSql,
    range: Range,
    take: impl FnMut(Entry) + Send,
) -> Result<Scan> {
    let failed = |error| Problem::database(format!("copy table `{}` after id {}", sql.table, range.after))(error);
    let messages = conn.copy_out_raw(&statement(sql.page.as_str(), range)).await.map_err(failed)?;
    let mut first = true;
    let rows = messages.try_filter_map(|message| ready(Ok(row(message, std::mem::take(&mut first)))));
    read_rows(rows, range, failed, |row| decode(row), take).await
}

/// `COPY` takes no parameters. No name in the text has a `$`.
fn statement(page: &str, range: Range) -> String {
    let page = page.replace("$1", &range.after.to_string()).replace("$2", &range.limit.to_string());
    format!("copy ({page}) to stdout (format binary)")
}

/// A message brings one row, but for the last; the first brings the header as well.
fn row(mut message: Bytes, first: bool) -> Option<Bytes> {
    if first {
        message = message.slice(HEADER.min(message.len())..);
    }
    (*message != TRAILER).then_some(message)
}

/// The outer error is the database's, the inner one the row's.
fn decode(row: &[u8]) -> Result<Result<Entry, Problem>, sqlx::Error> {
    let mut fields = Fields(row.strip_prefix(&COLUMNS).ok_or_else(|| undecodable(0, "number of columns"))?);
    let id = fields.integer(0, "id")?;
    let parts = EventParts {
        id: id.into(),
        event_type: Default::default(),
        foreign_id: std::str::from_utf8(fields.value(id, "foreign id")?)
            .map_err(|_| undecodable(id, "foreign id, which is not UTF-8"))?,
        timestamp: timestamp(fields.integer(id, "timestamp")?).ok_or_else(|| undecodable(id, "timestamp"))?,
        metadata: b"",
        trace: b"",
    };
    let event_type = fields.integer(id, "type")?;
    let (metadata, trace) = (fields.next(id, "metadata")?, fields.next(id, "trace")?);
    let parts = EventParts { metadata: metadata.unwrap_or_default(), trace: trace.unwrap_or_default(), ..parts };
    Ok(Entry::new(id, event_type, parts))
}

fn timestamp(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros.checked_add(EPOCH_MICROS)?)
}

/// What is left of a row: for each column its length and its value.
struct Fields<'r>(&'r [u8]);

impl<'r> Fields<'r> {
    /// The next value, or `None` for null.
    fn next(&mut self, id: i64, column: &str) -> Result<Option<&'r [u8]>, sqlx::Error> {
        let (length, rest) = self.0.split_first_chunk().ok_or_else(|| undecodable(id, column))?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Ok(None);
        };
        let (value, rest) = rest.split_at_checked(length).ok_or_else(|| undecodable(id, column))?;
        self.0 = rest;
        Ok(Some(value))
    }

    fn value(&mut self, id: i64, column: &str) -> Result<&'r [u8], sqlx::Error> {
        self.next(id, column)?.ok_or_else(|| undecodable(id, column))
    }

    fn integer(&mut self, id: i64, column: &str) -> Result<i64, sqlx::Error> {
        let value = self.value(id, column)?.try_into().map_err(|_| undecodable(id, column))?;
        Ok(i64::from_be_bytes(value))
    }
}

fn undecodable(id: i64, what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("event {id} has no readable {what}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(columns: [Option<&[u8]>; 6]) -> Vec<u8> {
        let mut row = COLUMNS.to_vec();
        for column in columns {
            let length = column.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            row.extend(length.to_be_bytes());
            row.extend(column.unwrap_or_default());
        }
        row
    }

    fn sample() -> Vec<u8> {
        let (id, time, kind) = (7_i64.to_be_bytes(), 1_500_000_i64.to_be_bytes(), 3_i64.to_be_bytes());
        tuple([Some(&id), Some(b"order"), Some(&time), Some(&kind), Some(b"{}"), None])
    }

    #[test]
    fn rows_are_decoded() {
        let entry = decode(&sample()).unwrap().unwrap();
        let event = entry.event.unwrap();
        assert_eq!((entry.id, event.foreign_id(), event.event_type().0), (7, "order", 3));
        assert_eq!(event.timestamp().to_rfc3339(), "2000-01-01T00:00:01.500+00:00");
        assert_eq!((event.metadata(), event.trace()), (b"{}".as_slice(), b"".as_slice()));
    }

    #[test]
    fn rows_that_are_cut_off_are_errors() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        let (id, time) = (7_i64.to_be_bytes(), i64::MAX.to_be_bytes());
        let cases: [(Option<&[u8]>, &str); 2] = [(None, "foreign id"), (Some(b"\xff"), "not UTF-8")];
        for (foreign_id, what) in cases {
            let error = decode(&tuple([Some(&id), foreign_id, None, None, None, None])).unwrap_err().to_string();
            assert!(error.contains("event 7") && error.contains(what), "{error}");
        }
        let error = decode(&tuple([Some(&id), Some(b"x"), Some(&time), None, None, None])).unwrap_err().to_string();
        assert!(error.contains("timestamp"), "{error}");
    }

    #[test]
    fn the_header_and_the_trailer_are_no_rows() {
        let message = [[0; HEADER].as_slice(), b"row"].concat();
        assert_eq!(row(message.into(), true).unwrap(), b"row".as_slice());
        assert_eq!(row(Bytes::from_static(b"row"), false).unwrap(), b"row".as_slice());
        assert!(row(Bytes::from_static(&TRAILER), false).is_none());
        assert!(row([[0; HEADER].as_slice(), &TRAILER].concat().into(), true).is_none());
    }

    #[test]
    fn the_statement_has_its_range() {
        let range = Range { after: -5, limit: 9, max_bytes: 0 };
        let text = statement("select 1 where id > $1 limit $2", range);
        assert_eq!(text, "copy (select 1 where id > -5 limit 9) to stdout (format binary)");
    }
}
