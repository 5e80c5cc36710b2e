use reflex_core::Cursor;

use crate::entry_id::EntryId;

/// The longest text that is kept as a cursor, in bytes.
const MAX_LEN: usize = 1024;

/// A text as a cursor, or why it is none. Whoever writes to Redis by hand easily leaves such traces.
pub(crate) fn cursor(bytes: &[u8]) -> Result<Cursor, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match text {
        "" => Err("it is empty"),
        _ if text.len() > MAX_LEN => Err("it is longer than 1024 bytes"),
        _ if text.chars().any(char::is_control) => Err("it has control characters in it"),
        _ if text.trim() != text => Err("it has spaces around it"),
        _ => Ok(text.into()),
    }
}

/// The order of two cursors that are entry ids.
pub(crate) fn order_of_entries(one: &Cursor, other: &Cursor) -> Option<std::cmp::Ordering> {
    let id = |cursor: &Cursor| cursor.to_string().parse::<EntryId>().ok();
    Some(id(one)?.cmp(&id(other)?))
}

/// Bytes for a message, cut off where they get long.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MAX: usize = 60;
    let start = bytes[..bytes.len().min(MAX)].utf8_chunks().map(|chunk| {
        let valid = chunk.valid().escape_debug().to_string();
        format!("{valid}{}", chunk.invalid().escape_ascii())
    });
    let start: String = start.collect();
    if bytes.len() > MAX { format!("\"{start}\"... ({} bytes)", bytes.len()) } else { format!("\"{start}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], why: Option<&str>) {
        assert_eq!(cursor(bytes).err(), why, "{bytes:?}");
    }

    #[test]
    fn what_no_cursor_is() {
        check(b"42", None);
        check("日付 2026".as_bytes(), None);
        check(&[b'9'; 1024], None);
        check(&[b'9'; 1025], Some("it is longer than 1024 bytes"));
        check(b"", Some("it is empty"));
        check(b"42\n", Some("it has control characters in it"));
        check(b" 42", Some("it has spaces around it"));
        check(b"\xff42", Some("it is not UTF-8"));
    }

    #[test]
    fn long_values_are_cut_off_in_messages() {
        assert_eq!(shown(b"a\xff\n\"b"), "\"a\\xff\\n\\\"b\"");
        assert!(shown(&[b'x'; 1000]).ends_with("x\"... (1000 bytes)"));
    }
}
