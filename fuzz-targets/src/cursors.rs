use reflex_core::Cursor;

/// A cursor prints the text that it was made of, and is an integer exactly if that integer prints like it.
///
/// # Panics
///
/// If that is not so.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let cursor = Cursor::from(text);
    assert_eq!(cursor.to_string(), text);
    assert_eq!(Cursor::from(cursor.to_string()), cursor);
    let integer = text.parse::<i64>().ok().filter(|integer| integer.to_string() == text);
    assert_eq!(cursor.as_i64(), integer);
    assert_eq!(integer.is_some_and(|integer| Cursor::from(integer) == cursor), integer.is_some());
}
