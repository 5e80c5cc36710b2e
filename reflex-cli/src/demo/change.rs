//! What the consumers read from an event, whatever it was made from.

use reflex_core::Event;
use serde_json::Value;

/// The event type of a commit with one parent or none, and of everything that does not say otherwise.
pub(crate) const COMMIT: i32 = 1;
/// The event type of a commit with several parents.
pub(crate) const MERGE: i32 = 2;

/// Who changed how much.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) author: String,
    pub(crate) added: i64,
    pub(crate) deleted: i64,
    pub(crate) subject: String,
}

impl Change {
    /// Reads an event; one without an author is counted for its foreign id.
    pub(crate) fn of(event: &Event) -> Self {
        // Metadata that is not JSON has no such keys, and events without them are welcome.
        let metadata: Value = serde_json::from_slice(event.metadata()).unwrap_or_default();
        let text = |key| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        let count = |key| metadata.get(key).and_then(Value::as_i64).unwrap_or(0);
        Self {
            author: text("author").unwrap_or_else(|| event.foreign_id().to_owned()),
            added: count("added"),
            deleted: count("deleted"),
            subject: text("subject").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use reflex_core::EventParts;

    use super::*;

    #[track_caller]
    fn check(metadata: &str, author: &str, added: i64) {
        let event = Event::from(EventParts {
            id: 1.into(),
            event_type: COMMIT.into(),
            foreign_id: "f",
            timestamp: Default::default(),
            metadata: metadata.as_bytes(),
            trace: b"",
        });
        let change = Change::of(&event);
        assert_eq!((&*change.author, change.added), (author, added));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        check(r#"{"author":"Ann","added":3}"#, "Ann", 3);
        check(r#"{"author":"","added":"3"}"#, "", 0);
        check(r#"{"author":5,"added":1.5}"#, "f", 0);
        check("[]", "f", 0);
        check("", "f", 0);
    }
}
