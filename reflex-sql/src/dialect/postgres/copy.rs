//! Many rows by `COPY`, which takes about half of the client's time that a `SELECT` does.

use std::future::ready;

use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};
use reflex_core::EventParts;
use sqlx::PgConnection;
use sqlx_core::bytes::Bytes;

use crate::{
    Result,
    dialect::{EventsSql, read_rows},
    error::Problem,
    names::TableName,
    page::{Entry, Range, Scan},
};

/// Before the first row stand a signature of 11 bytes, flags, and the length of an extension.
const HEADER: usize = 19;
/// Stands after the last row, in place of the number of its columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const COLUMNS: [u8; 2] = 6_i16.to_be_bytes();
/// Stands in place of the length of a value.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// Timestamps count from the year 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(super) async fn scan(
    conn: &mut PgConnection,
    sql: &EventsSql,
    range: Range,
    take: impl FnMut(Entry) + Send,
) -> Result<Scan> {
    let attempted = format!("copy table `{}` after id {}", sql.table, range.after);
    let messages = conn.copy_out_raw(&statement(sql.page.as_str(), range)).await;
    let messages = messages.map_err(Problem::database(attempted))?;
    read(messages, &sql.table, range, take).await
}

/// Takes the rows of the messages of a `COPY`.
pub(crate) async fn read(
    messages: impl Stream<Item = Result<Bytes, sqlx::Error>>,
    table: &TableName,
    range: Range,
    take: impl FnMut(Entry),
) -> Result<Scan> {
    let mut first = true;
    let rows = messages.try_filter_map(|message| ready(Ok(row(message, std::mem::take(&mut first)))));
    read_rows(rows, table, range, (id, parts), take).await
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

fn id(row: &Bytes) -> Result<i64, sqlx::Error> {
    Fields::of(row)?.integer("id")
}

/// What the row says, and its type.
fn parts(row: &Bytes, id: i64) -> Result<(EventParts<'_>, i64), sqlx::Error> {
    let mut fields = Fields::of(row)?;
    fields.integer("id")?;
    let foreign_id = fields.value("foreign id")?;
    let foreign_id = str::from_utf8(foreign_id).map_err(|_| unreadable("foreign id, which is not UTF-8"))?;
    let timestamp = timestamp(fields.integer("timestamp")?)?;
    let event_type = fields.integer("type")?;
    let (metadata, trace) = (fields.next("metadata")?.unwrap_or_default(), fields.next("trace")?.unwrap_or_default());
    fields.end()?;
    let event = EventParts { id: id.into(), event_type: Default::default(), foreign_id, timestamp, metadata, trace };
    Ok((event, event_type))
}

/// A timestamp as Postgres sends it. There are some that no date is, such as infinity.
pub(super) fn timestamp(micros: i64) -> Result<DateTime<Utc>, sqlx::Error> {
    let date = micros.checked_add(EPOCH_MICROS).and_then(DateTime::from_timestamp_micros);
    date.ok_or_else(|| unreadable("timestamp, or one that is too far away"))
}

/// What is left of a row: for each column its length and its value.
struct Fields<'r>(&'r [u8]);

impl<'r> Fields<'r> {
    fn of(row: &'r [u8]) -> Result<Self, sqlx::Error> {
        row.strip_prefix(&COLUMNS).map(Self).ok_or_else(|| unreadable("number of columns"))
    }

    /// The next value, or `None` for null.
    fn next(&mut self, column: &str) -> Result<Option<&'r [u8]>, sqlx::Error> {
        let (length, rest) = self.0.split_first_chunk().ok_or_else(|| unreadable(column))?;
        if *length == NULL {
            self.0 = rest;
            return Ok(None);
        }
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let values = length.and_then(|length| rest.split_at_checked(length));
        let (value, rest) = values.ok_or_else(|| unreadable(column))?;
        self.0 = rest;
        Ok(Some(value))
    }

    fn value(&mut self, column: &str) -> Result<&'r [u8], sqlx::Error> {
        self.next(column)?.ok_or_else(|| unreadable(column))
    }

    fn integer(&mut self, column: &str) -> Result<i64, sqlx::Error> {
        let value = self.value(column)?.try_into().map_err(|_| unreadable(column))?;
        Ok(i64::from_be_bytes(value))
    }

    fn end(&self) -> Result<(), sqlx::Error> {
        if self.0.is_empty() { Ok(()) } else { Err(unreadable("end of the row, which goes on")) }
    }
}

fn unreadable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("there is no readable {what}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::tuple;

    fn sample() -> Bytes {
        let (id, time, kind) = (7_i64.to_be_bytes(), 1_500_000_i64.to_be_bytes(), 3_i64.to_be_bytes());
        tuple([Some(&id), Some(b"order"), Some(&time), Some(&kind), Some(b"{}"), None])
    }

    #[test]
    fn rows_are_decoded() {
        let row = sample();
        let (event, event_type) = parts(&row, 7).unwrap();
        assert_eq!((id(&row).unwrap(), event.foreign_id, event_type), (7, "order", 3));
        assert_eq!(event.timestamp.to_rfc3339(), "2000-01-01T00:00:01.500+00:00");
        assert_eq!((event.metadata, event.trace), (b"{}".as_slice(), b"".as_slice()));
    }

    #[test]
    fn rows_that_are_cut_off_are_errors() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(parts(&whole.slice(..length), 7).is_err(), "{length}");
        }
    }

    #[test]
    fn rows_that_go_on_are_errors() {
        let two = [sample(), sample()].concat().into();
        let error = parts(&two, 7).unwrap_err().to_string();
        assert!(error.contains("end of the row"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let (id, time) = (7_i64.to_be_bytes(), i64::MAX.to_be_bytes());
        let cases: [(Option<&[u8]>, &str); 2] = [(None, "foreign id"), (Some(b"\xff"), "not UTF-8")];
        for (foreign_id, what) in cases {
            let error = parts(&tuple([Some(&id), foreign_id, None, None, None, None]), 7).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let error = parts(&tuple([Some(&id), Some(b"x"), Some(&time), None, None, None]), 7).unwrap_err().to_string();
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
