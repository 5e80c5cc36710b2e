use reflex_core::{Event, EventParts, NewEvent};
use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use crate::ndjson::{BatchOptions, parse_event, read_batches, write_event};

/// What is read as an event is written as a line that is read as the same event. A bad line is told by a place inside of it,
/// and everything before it arrives, in batches that end where they say.
pub(crate) fn lines(data: &[u8]) {
    let mut good = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        match parse_event(line) {
            Ok(event) => {
                check_way_back(&event);
                good.push(event);
            }
            Err(bad) => assert!((1..=line.len() + 1).contains(&bad.column), "{bad} of {} bytes", line.len()),
        }
    }
    check_batches(data, &good);
}

fn check_way_back(event: &NewEvent) {
    let parts = event.parts();
    let mut line = Vec::new();
    let stored = Event::from(EventParts {
        id: 7.into(),
        event_type: parts.event_type,
        foreign_id: parts.foreign_id,
        timestamp: parts.timestamp.unwrap_or_default(),
        metadata: parts.metadata,
        trace: parts.trace,
    });
    write_event(&mut line, &stored).expect("writing to memory");
    let text = std::str::from_utf8(&line).expect("JSON is UTF-8");
    assert!(!text.contains('\n') && serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
    let again = parse_event(&line).unwrap_or_else(|bad| panic!("{bad}: {text}"));
    assert_eq!(again, event.clone().timestamp(stored.timestamp()), "{text}");
}

fn check_batches(data: &[u8], good: &[NewEvent]) {
    let (to, mut from) = mpsc::channel(data.len() + 1);
    let read = read_batches(data, BatchOptions::new(2), |line, _| parse_event(line), &to);
    drop(to);
    let mut events = Vec::new();
    while let Ok(batch) = from.try_recv() {
        assert!((1..=2).contains(&batch.events.len()) && batch.end.bytes <= data.len() as u64);
        assert!(data[..batch.end.bytes as usize].ends_with(&batch.last));
        events.extend(batch.events);
    }
    // A byte order mark is passed over in the first line of an input only.
    if !data.starts_with(b"\xef\xbb\xbf") {
        assert!(good.starts_with(&events), "{events:?} of {good:?}");
        assert!(read.is_err() || events.len() == good.len(), "{events:?} of {good:?}");
    }
}
