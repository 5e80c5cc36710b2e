use chrono::{DateTime, SecondsFormat, Utc};
use redis::{Cmd, cmd};
use reflex_core::{Cursor, Event, EventParts, EventType, NewEvent};

use crate::{
    entry_id::EntryId,
    error::{Problem, Result},
    value::shown,
};

const EVENT_TYPE: &str = "type";
const FOREIGN_ID: &str = "foreign_id";
const TIMESTAMP: &str = "timestamp";
const METADATA: &str = "metadata";
const TRACE: &str = "trace";

/// An entry of a stream as Redis answers it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// What it takes of memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| size_of::<[Vec<u8>; 2]>() + name.len() + value.len());
        size_of::<Self>() + fields.sum::<usize>()
    }

    /// The event that the entry of a stream is.
    pub(crate) fn decode(&self, key: &str) -> Result<Event> {
        Reading { key, entry: self }.event()
    }
}

/// The command that appends an event.
pub(crate) fn append_command(key: &str, event: &NewEvent) -> Result<Cmd> {
    let no_event = |error: reflex_core::Error| Problem::Event { key: key.to_owned(), problem: error.to_string() };
    event.validate().map_err(no_event)?;
    let parts = event.parts();
    let mut command = cmd("XADD");
    command.arg(key).arg("*");
    command.arg(EVENT_TYPE).arg(parts.event_type.0).arg(FOREIGN_ID).arg(parts.foreign_id);
    if let Some(timestamp) = parts.timestamp {
        command.arg(TIMESTAMP).arg(timestamp.to_rfc3339_opts(SecondsFormat::AutoSi, true));
    }
    for (field, bytes) in [(METADATA, parts.metadata), (TRACE, parts.trace)] {
        if !bytes.is_empty() {
            command.arg(field).arg(bytes);
        }
    }
    Ok(command)
}

/// An entry that is being read, with the stream for messages.
struct Reading<'a> {
    key: &'a str,
    entry: &'a Entry,
}

impl<'a> Reading<'a> {
    fn event(&self) -> Result<Event> {
        Ok(Event::from(EventParts {
            id: Cursor::from(self.entry.id.to_string()),
            event_type: self.event_type()?,
            foreign_id: self.text(FOREIGN_ID, self.required(FOREIGN_ID)?)?,
            timestamp: self.timestamp()?,
            metadata: self.optional(METADATA)?.unwrap_or_default(),
            trace: self.optional(TRACE)?.unwrap_or_default(),
        }))
    }

    fn event_type(&self) -> Result<EventType> {
        let value = self.required(EVENT_TYPE)?;
        let number = self.text(EVENT_TYPE, value)?.parse().map(EventType);
        number.map_err(|_| self.malformed(EVENT_TYPE, format!("is {}, no 32-bit integer", shown(value))))
    }

    /// By default the time in the id, which Redis took from its clock.
    fn timestamp(&self) -> Result<DateTime<Utc>> {
        let Some(value) = self.optional(TIMESTAMP)? else {
            let millis = i64::try_from(self.entry.id.millis).ok().and_then(DateTime::from_timestamp_millis);
            return millis.ok_or_else(|| self.malformed(TIMESTAMP, "is missing, and the id is no time".to_owned()));
        };
        let timestamp = DateTime::parse_from_rfc3339(self.text(TIMESTAMP, value)?);
        let problem = || format!("is {}, no time as 2026-01-31T12:00:00.123456Z is one", shown(value));
        timestamp.map(|timestamp| timestamp.to_utc()).map_err(|_| self.malformed(TIMESTAMP, problem()))
    }

    fn required(&self, field: &'static str) -> Result<&'a [u8]> {
        self.optional(field)?.ok_or_else(|| self.malformed(field, "is missing".to_owned()))
    }

    fn optional(&self, field: &'static str) -> Result<Option<&'a [u8]>> {
        let mut values = self.entry.fields.iter().filter(|(name, _)| name == field.as_bytes());
        let value = values.next().map(|(_, value)| value.as_slice());
        if values.next().is_some() {
            return Err(self.malformed(field, "is there more than once".to_owned()));
        }
        Ok(value)
    }

    fn text(&self, field: &'static str, value: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(value)
            .map_err(|_| self.malformed(field, format!("is {}, which is not UTF-8", shown(value))))
    }

    fn malformed(&self, field: &'static str, problem: String) -> crate::Error {
        Problem::Malformed { key: self.key.to_owned(), id: self.entry.id.to_string(), field, problem }.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &[u8])]) -> Entry {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
        Entry { id: "1526919030474-55".parse().unwrap(), fields: fields.collect() }
    }

    #[track_caller]
    fn check(fields: &[(&str, &[u8])], field: &str, problem: &str) {
        let error = entry(fields).decode("orders").unwrap_err();
        assert!(error.is_malformed());
        assert_eq!(
            error.to_string(),
            format!("entry 1526919030474-55 of stream `orders` is no event: field `{field}` {problem}")
        );
    }

    #[test]
    fn other_fields_are_left_alone_and_the_id_is_the_time() {
        let event =
            entry(&[("other", b"\xff"), ("foreign_id", b"order-12"), ("type", b"-1")]).decode("orders").unwrap();
        assert_eq!((event.foreign_id(), event.event_type().0), ("order-12", -1));
        assert_eq!(event.timestamp().timestamp_millis(), 1_526_919_030_474);
        assert_eq!(event.id(), &"1526919030474-55".into());
        assert_eq!((event.metadata(), event.trace()), (&b""[..], &b""[..]));
    }

    #[test]
    fn what_no_event_is_names_stream_entry_and_field() {
        check(&[("foreign_id", b"x")], "type", "is missing");
        check(&[("type", b"1")], "foreign_id", "is missing");
        check(&[("type", b"x"), ("foreign_id", b"x")], "type", "is \"x\", no 32-bit integer");
        check(&[("type", b"4294967296"), ("foreign_id", b"x")], "type", "is \"4294967296\", no 32-bit integer");
        check(&[("type", b"\xff"), ("foreign_id", b"x")], "type", "is \"\\xff\", which is not UTF-8");
        check(&[("type", b"1"), ("foreign_id", b"\xff")], "foreign_id", "is \"\\xff\", which is not UTF-8");
        check(&[("type", b"1"), ("foreign_id", b"x"), ("type", b"2")], "type", "is there more than once");
        let time = "is \"now\", no time as 2026-01-31T12:00:00.123456Z is one";
        check(&[("type", b"1"), ("foreign_id", b"x"), ("timestamp", b"now")], "timestamp", time);
    }

    #[test]
    fn an_id_that_is_no_time_needs_a_timestamp() {
        let mut entry = entry(&[("type", b"1"), ("foreign_id", b"x")]);
        entry.id = "18446744073709551615-0".parse().unwrap();
        assert!(entry.decode("orders").unwrap_err().to_string().contains("the id is no time"));
        entry.fields.push((b"timestamp".to_vec(), b"2026-01-31T12:00:00.5+01:00".to_vec()));
        assert_eq!(entry.decode("orders").unwrap().timestamp().to_rfc3339(), "2026-01-31T11:00:00.500+00:00");
    }
}
