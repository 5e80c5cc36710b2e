use std::{borrow::Cow, io, str};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::SecondsFormat;
use reflex_core::Event;
use serde_json::value::RawValue;

/// Writes an event as a JSON object, without a line end.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Event) -> io::Result<()> {
    out.extend_from_slice(b"{\"id\":");
    text(out, &event.id().to_string())?;
    out.extend_from_slice(b",\"type\":");
    serde_json::to_writer(&mut *out, &event.event_type().0)?;
    out.extend_from_slice(b",\"foreign_id\":");
    text(out, event.foreign_id())?;
    out.extend_from_slice(b",\"timestamp\":");
    text(out, &event.timestamp().to_rfc3339_opts(SecondsFormat::AutoSi, true))?;
    metadata(out, event.metadata())?;
    if !event.trace().is_empty() {
        bytes(out, b",\"trace_base64\":", event.trace());
    }
    out.push(b'}');
    Ok(())
}

/// Writes the metadata in the readable way and, if that does not tell the exact bytes, in base64.
fn metadata(out: &mut Vec<u8>, metadata: &[u8]) -> io::Result<()> {
    let mut exact = false;
    if let Ok(utf8) = str::from_utf8(metadata) {
        out.extend_from_slice(b",\"metadata\":");
        if let Ok(json) = serde_json::from_str::<&RawValue>(utf8) {
            let line = one_line(json.get());
            exact = *line == *utf8 && !is_read_otherwise(&line);
            out.extend_from_slice(line.as_bytes());
        } else {
            exact = true;
            text(out, utf8)?;
        }
    }
    if !exact {
        bytes(out, b",\"metadata_base64\":", metadata);
    }
    Ok(())
}

/// Whether `import` makes something else of this JSON value: text without quotes, or nothing.
fn is_read_otherwise(json: &str) -> bool {
    json.starts_with('"') || json == "null"
}

/// Line ends in JSON are never part of a string, so any white space will do.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { json.replace(['\n', '\r'], " ").into() } else { json.into() }
}

fn text(out: &mut Vec<u8>, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

fn bytes(out: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use reflex_core::EventParts;

    use super::*;
    use crate::ndjson::parse_event;

    fn line(foreign_id: &str, metadata: &[u8], trace: &[u8]) -> String {
        let event = Event::from(EventParts {
            id: 7.into(),
            event_type: (-1).into(),
            foreign_id,
            timestamp: "2026-01-31T12:00:00.5Z".parse().unwrap(),
            metadata,
            trace,
        });
        let mut out = Vec::new();
        write_event(&mut out, &event).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What is printed, and that reading it gives the same bytes.
    #[track_caller]
    fn check(metadata: &[u8], expected: &str) {
        let line = line("a", metadata, b"");
        let shown = line.split_once(r#""2026-01-31T12:00:00.500Z","#).unwrap().1;
        assert_eq!(shown, format!("{expected}}}"));
        assert_eq!(parse_event(line.as_bytes()).unwrap().parts().metadata, metadata, "{line}");
    }

    #[test]
    fn metadata_is_readable_and_comes_back_exactly() {
        check(br#"{"b": 1.0, "a":[1e400]}"#, r#""metadata":{"b": 1.0, "a":[1e400]}"#);
        check(b"12", r#""metadata":12"#);
        check(b"", r#""metadata":"""#);
        check(b"a \"word\"\n", r#""metadata":"a \"word\"\n""#);
        check(br#""quoted""#, r#""metadata":"quoted","metadata_base64":"InF1b3RlZCI=""#);
        check(b"null", r#""metadata":null,"metadata_base64":"bnVsbA==""#);
        check(b"{\r\n}", r#""metadata":{  },"metadata_base64":"ew0KfQ==""#);
        check(b" 1", r#""metadata":1,"metadata_base64":"IDE=""#);
        check(&[0xff, 0], r#""metadata_base64":"/wA=""#);
    }

    #[test]
    fn all_fields_come_back() {
        let line = line("ä\"\n", b"x", &[1, 2]);
        assert!(line.starts_with(r#"{"id":"7","type":-1,"foreign_id":"ä\"\n","timestamp":"#), "{line}");
        let event = parse_event(line.as_bytes()).unwrap();
        assert_eq!(event.parts().foreign_id, "ä\"\n");
        assert_eq!(event.parts().event_type.0, -1);
        assert_eq!(event.parts().timestamp.unwrap().timestamp_subsec_millis(), 500);
        assert_eq!(event.parts().trace, [1, 2]);
    }
}
