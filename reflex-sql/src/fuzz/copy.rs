use chrono::{DateTime, Utc};
use futures_util::{FutureExt, stream};
use reflex_core::{Event, EventParts, EventType};
use sqlx_core::bytes::Bytes;

use crate::{
    Result,
    dialect::postgres::copy,
    names::TableName,
    page::{Range, Scan},
};

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = b"\xff\xff";
const YEAR_2000: &str = "2000-01-01T00:00:00Z";
/// What a timestamp can be off 1970, in microseconds: about 253,000 years.
const FARTHEST: i64 = 8_000_000_000_000_000_000;

/// An id, and the event unless it is a placeholder.
type Row = (i64, Option<Event>);

/// What is taken for an event is a whole message, with nothing else in it. No message is passed over.
///
/// The data are the messages, each after its length in one byte.
pub fn copy_messages(data: &[u8]) {
    let mut messages = texts(data);
    let (rows, scan) = read(messages.iter().cloned().map(Ok));
    if let Some(first) = messages.first_mut() {
        *first = first.slice(HEADER.len().min(first.len())..);
    }
    let mut messages = messages.iter().filter(|message| *message != TRAILER);
    for (id, event) in rows {
        let message = messages.next().expect("a row comes of a message");
        let is_whole = event.as_ref().is_none_or(|event| forms(id, event).contains(message));
        assert!(is_whole, "{event:?} of b\"{}\"", message.escape_ascii());
    }
    assert!(is_refused(&scan) || messages.next().is_none(), "a message was passed over");
}

/// Rows as Postgres sends them are read as what they are. A stream that is cut off, or has two of its messages in one, is
/// refused at that place, after the rows before it.
///
/// The data are the place, in two bytes, and then the columns of the rows, each after its length in one byte.
pub fn copy_rows(data: &[u8]) {
    let Some((place, columns)) = data.split_first_chunk() else { return };
    let place = usize::from(u16::from_be_bytes(*place));
    let columns = texts(columns);
    let (columns, _) = columns.as_chunks();
    let events: Vec<_> = columns.iter().map(event).collect();
    let messages = messages(&events);
    let rows: Vec<Row> =
        events.into_iter().map(|(id, event)| (id, Some(event).filter(|event| !event.is_noop()))).collect();
    let (read, scan) = read(messages.iter().cloned().map(Ok));
    assert!(!is_refused(&scan), "{scan:?}");
    assert_eq!(read, rows);
    check_refused(cut(&messages, place), &rows);
    check_refused(joined(&messages, place), &rows);
}

/// A row as Postgres sends it.
pub(crate) fn tuple(columns: [Option<&[u8]>; 6]) -> Bytes {
    let mut row = vec![0, 6];
    for column in columns {
        let length = column.map_or(-1, |value| i32::try_from(value.len()).expect("a value has less than 2 GiB"));
        row.extend(length.to_be_bytes());
        row.extend(column.unwrap_or_default());
    }
    row.into()
}

fn event([id, foreign_id, timestamp, event_type, metadata, trace]: &[Bytes; 6]) -> (i64, Event) {
    let id = integer(id);
    let timestamp = DateTime::from_timestamp_micros(integer(timestamp) % FARTHEST);
    let event = Event::from(EventParts {
        id: id.into(),
        event_type: EventType(i32::try_from(integer(event_type)).unwrap_or_default()),
        foreign_id: &String::from_utf8_lossy(foreign_id),
        timestamp: timestamp.expect("it is not too far away"),
        metadata,
        trace,
    });
    (id, event)
}

fn messages(events: &[(i64, Event)]) -> Vec<Bytes> {
    let rows = events.iter().map(|(id, event)| forms(*id, event)[0].clone());
    let mut messages: Vec<_> = rows.chain([TRAILER.into()]).collect();
    messages[0] = [HEADER, &messages[0]].concat().into();
    messages
}

/// The rows that an event can come of: in place of no bytes there may be a null.
fn forms(id: i64, event: &Event) -> [Bytes; 4] {
    let year_2000: DateTime<Utc> = YEAR_2000.parse().expect("it is a date");
    let micros = event.timestamp().timestamp_micros() - year_2000.timestamp_micros();
    let [id, micros, event_type] = [id, micros, event.event_type().0.into()].map(i64::to_be_bytes);
    [(false, false), (false, true), (true, false), (true, true)].map(|nulls| {
        let (metadata, trace) = (value(event.metadata(), nulls.0), value(event.trace(), nulls.1));
        tuple([Some(&id), Some(event.foreign_id().as_bytes()), Some(&micros), Some(&event_type), metadata, trace])
    })
}

fn value(bytes: &[u8], or_null: bool) -> Option<&[u8]> {
    (!or_null || !bytes.is_empty()).then_some(bytes)
}

/// What arrives before the connection is lost: perhaps a part of a message.
fn cut(messages: &[Bytes], place: usize) -> Vec<Result<Bytes, sqlx::Error>> {
    let mut left = place % messages.iter().map(Bytes::len).sum::<usize>();
    let mut arrived = Vec::new();
    for message in messages {
        if left < message.len() {
            arrived.push(if left == 0 { Err(sqlx::Error::WorkerCrashed) } else { Ok(message.slice(..left)) });
            break;
        }
        left -= message.len();
        arrived.push(Ok(message.clone()));
    }
    arrived
}

/// The messages up to one that has another in it.
fn joined(messages: &[Bytes], place: usize) -> Vec<Result<Bytes, sqlx::Error>> {
    let at = place % messages.len();
    let next = messages.get(at + 1).map_or(TRAILER, |next| next);
    let last = [&messages[at], next].concat().into();
    messages[..at].iter().cloned().chain([last]).map(Ok).collect()
}

fn check_refused(arrived: Vec<Result<Bytes, sqlx::Error>>, rows: &[Row]) {
    let shown = format!("{arrived:?}");
    let whole = arrived.len() - 1;
    let (read, scan) = read(arrived);
    assert!(is_refused(&scan), "{scan:?} of {shown}");
    assert_eq!(read, rows[..whole], "{shown}");
}

fn read(messages: impl IntoIterator<Item = Result<Bytes, sqlx::Error>>) -> (Vec<Row>, Result<Scan>) {
    let table = TableName::parse("events").expect("it is a name");
    let range = Range { after: 0, limit: u32::MAX, max_bytes: usize::MAX };
    let mut rows = Vec::new();
    let scan = copy::read(stream::iter(messages), &table, range, |entry| rows.push((entry.id, entry.event)));
    let scan = scan.now_or_never().expect("all messages are there");
    (rows, scan)
}

/// Whether the next read would begin with what could not be read, and fail.
fn is_refused(scan: &Result<Scan>) -> bool {
    scan.as_ref().is_ok_and(|scan| scan.abandoned) || scan.is_err()
}

fn integer(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |integer, byte| integer << 8 | i64::from(*byte))
}

fn texts(mut data: &[u8]) -> Vec<Bytes> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let (text, rest) = rest.split_at(rest.len().min((*length).into()));
        texts.push(Bytes::copy_from_slice(text));
        data = rest;
    }
    texts
}
