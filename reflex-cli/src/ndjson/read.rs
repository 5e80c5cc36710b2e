use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use reflex_core::NewEvent;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny},
};
use serde_json::value::RawValue;

/// What is wrong with a line, and where in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub(crate) struct BadLine {
    /// Where reading stopped, in bytes from 1.
    pub(crate) column: usize,
    pub(crate) problem: String,
}

impl BadLine {
    fn at(column: usize, problem: impl Into<String>) -> Self {
        Self { column, problem: problem.into() }
    }
}

impl From<serde_json::Error> for BadLine {
    fn from(error: serde_json::Error) -> Self {
        let position = format!(" at line {} column {}", error.line(), error.column());
        let problem = error.to_string();
        Self::at(error.column().max(1), problem.strip_suffix(&position).unwrap_or(&problem))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    #[serde(rename = "type")]
    event_type: i32,
    #[serde(borrow)]
    foreign_id: Cow<'a, str>,
    #[serde(default, deserialize_with = "timestamp")]
    timestamp: Option<DateTime<Utc>>,
    #[serde(default, borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "bytes")]
    metadata_base64: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "bytes")]
    trace_base64: Option<Vec<u8>>,
}

/// Reads an event from a line.
///
/// # Errors
///
/// If the line is not an object of the form that [`write_event`](super::write_event) writes, or the event is a placeholder.
pub(crate) fn parse_event(line: &[u8]) -> Result<NewEvent, BadLine> {
    let start = object_start(line)?;
    let line: Line<'_> = serde_json::from_slice(line)?;
    let mut event = NewEvent::new(line.foreign_id, line.event_type);
    if let Some(timestamp) = line.timestamp {
        event = event.timestamp(timestamp);
    }
    if let Some(metadata) = line.metadata_base64 {
        event = event.metadata(metadata);
    } else if let Some(json) = line.metadata {
        event = event.metadata(metadata(json)?);
    }
    if let Some(trace) = line.trace_base64 {
        event = event.trace(trace);
    }
    match event.validate() {
        Ok(()) => Ok(event),
        Err(error) => Err(BadLine::at(start + 1, error.to_string())),
    }
}

/// Where the object begins. Without this check an array of the right values would pass for an object.
///
/// # Errors
///
/// If the line begins with something else.
pub(crate) fn object_start(line: &[u8]) -> Result<usize, BadLine> {
    let start = line.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    match line.get(start) {
        Some(b'{') => Ok(start),
        _ => Err(BadLine::at(start + 1, "expected an object, such as {\"type\":1,\"foreign_id\":\"order-12\"}")),
    }
}

/// A string stands for its text, everything else for its JSON.
fn metadata(json: &RawValue) -> Result<Vec<u8>, BadLine> {
    let json = json.get();
    if json.starts_with('"') {
        Ok(serde_json::from_str::<String>(json)?.into_bytes())
    } else {
        Ok(json.as_bytes().to_vec())
    }
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let time = DateTime::parse_from_rfc3339(&text).map_err(|error| {
        D::Error::custom(format!("invalid timestamp {text:?}, {error}: write it like \"2026-01-31T12:00:00Z\""))
    })?;
    Ok(Some(time.to_utc()))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(text.as_bytes());
    bytes.map(Some).map_err(|error| D::Error::custom(format!("invalid base64: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_bad(line: &str, column: usize, problem: &str) {
        let error = parse_event(line.as_bytes()).unwrap_err();
        assert!(error.problem.contains(problem), "{error}");
        assert_eq!(error.column, column, "{error}");
    }

    #[test]
    fn a_bad_line_is_told_by_column() {
        check_bad(r#"[1,"a"]"#, 1, "expected an object");
        check_bad(r#"{"type":1}"#, 10, "missing field `foreign_id`");
        check_bad(r#"{"type":"1","foreign_id":"a"}"#, 11, "expected i32");
        check_bad(r#"{"type":4294967296,"foreign_id":"a"}"#, 18, "expected i32");
        check_bad(r#"{"type":1,"foreign":"a"}"#, 19, "unknown field `foreign`, expected one of");
        check_bad(r#"{"type":1,"foreign_id":"a""#, 26, "EOF");
        check_bad(r#"{"type":1,"foreign_id":"a"} x"#, 29, "trailing");
        check_bad(r#"{"type":1,"foreign_id":"a","timestamp":"noon"}"#, 46, "write it like");
        check_bad(r#"{"type":1,"foreign_id":"a","metadata_base64":"?"}"#, 49, "invalid base64");
        check_bad(r#"  {"type":0,"foreign_id":"0"}"#, 3, "placeholder");
        let bad_utf8 = b"{\"type\":1,\"foreign_id\":\"\xff\"}";
        assert!(parse_event(bad_utf8).is_err());
    }

    #[test]
    fn what_is_left_out_is_left_to_the_database() {
        let event = parse_event(br#" {"foreign_id":"a\u00e4","type":-5,"metadata":null,"id":"9"} "#).unwrap();
        assert_eq!(event, NewEvent::new("aä", -5));
    }
}
