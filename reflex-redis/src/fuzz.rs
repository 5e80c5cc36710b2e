//! What must hold for any bytes that Redis may hold. The targets panic where it does not.

use reflex_core::{Cursor, NewEvent};

use crate::{
    entry::{Entry, append_command},
    entry_id::EntryId,
    value::{self, order_of_entries, shown},
};

/// An entry id is what Redis prints, and ids have the order of their numbers.
pub fn entry_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once(' ').unwrap_or((text, "5-5"));
    let ids = (first.parse::<EntryId>(), second.parse::<EntryId>());
    for (text, id) in [(first, ids.0), (second, ids.1)] {
        let numbers = text.split_once('-').map(|(one, other)| (number(one), number(other)));
        assert_eq!(id.is_ok(), matches!(numbers, Some((Some(_), Some(_)))), "{text:?}");
        assert!(id.is_err() || id.map(|id| id.to_string()) == Ok(text.to_owned()), "{text:?}");
    }
    let order = order_of_entries(&first.into(), &second.into());
    assert_eq!(order, ids.0.ok().zip(ids.1.ok()).map(|(one, other)| one.cmp(&other)));
}

/// A stored value that is taken for a cursor is text that does not mislead who reads it, and comes back as it was. Bytes that
/// are shown are short and plain.
pub fn stored_cursor(data: &[u8]) {
    if let Ok(cursor) = value::cursor(data) {
        let text = cursor.to_string();
        assert_eq!(text.as_bytes(), data);
        assert!(!text.is_empty() && text.len() <= 1024 && text.trim() == text, "{text:?}");
        check_plain(&text);
        assert_eq!(value::cursor(text.as_bytes()), Ok(Cursor::from(text)));
    }
    let shown = shown(data);
    check_plain(&shown);
    assert!(shown.len() <= 1_000, "{shown}");
}

/// An entry that is an event can be appended again as the same event; another one is refused by a message that is one line.
///
/// The data are the id and then names and values by turns, each after its length in one byte.
pub fn entry(data: &[u8]) {
    let mut texts = texts(data).into_iter();
    let Some(id) = texts.next().and_then(|id| String::from_utf8(id).ok()?.parse().ok()) else { return };
    let texts: Vec<_> = texts.collect();
    let (pairs, _) = texts.as_chunks::<2>();
    let fields = pairs.iter().map(|[name, value]| (name.clone(), value.clone()));
    let entry = Entry { id, fields: fields.collect() };
    match entry.decode("orders") {
        Ok(event) => check_event(id, &event),
        Err(error) => {
            assert!(error.is_malformed(), "{error:?}");
            check_plain(&error.to_string());
        }
    }
}

fn check_event(id: EntryId, event: &reflex_core::Event) {
    let new = NewEvent::new(event.foreign_id(), event.event_type())
        .timestamp(event.timestamp())
        .metadata(event.metadata())
        .trace(event.trace());
    let Ok(command) = append_command("orders", &new) else {
        return assert!(event.is_noop(), "{event:?} cannot be appended");
    };
    let arguments: Vec<_> = command.args_iter().map(bytes).skip(3).collect();
    let (pairs, _) = arguments.as_chunks::<2>();
    let fields = pairs.iter().map(|[name, value]| (name.clone(), value.clone())).collect();
    let again = Entry { id, fields }.decode("orders").expect("what was appended is an event");
    assert_eq!(again, *event);
}

fn bytes(argument: redis::Arg<&[u8]>) -> Vec<u8> {
    match argument {
        redis::Arg::Simple(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    }
}

fn texts(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let (text, rest) = rest.split_at(rest.len().min((*length).into()));
        texts.push(text.to_vec());
        data = rest;
    }
    texts
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[track_caller]
fn check_plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use fuzz_targets::explore;

    #[test]
    fn entry_ids() {
        explore("entry_id", super::entry_id);
    }

    #[test]
    fn stored_cursors() {
        explore("stored_cursor", super::stored_cursor);
    }

    #[test]
    fn entries() {
        explore("entry", super::entry);
    }
}
