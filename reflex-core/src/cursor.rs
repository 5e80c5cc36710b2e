use std::{fmt, sync::Arc};

/// A position in one event stream: the id of the last event that was consumed.
///
/// The engine treats cursors as opaque and never orders them. Integers, the ids of SQL events tables, are stored without
/// an allocation; any other text is reference counted. A cursor is canonical from its construction: text that is exactly
/// how an `i64` prints *is* that integer, so equal positions are always equal values.
///
/// "No cursor yet" is `Option::None`, never a special cursor.
///
/// # Examples
///
/// ```
/// use reflex_core::Cursor;
///
/// assert_eq!(Cursor::from("42"), Cursor::from(42));
/// assert_eq!(Cursor::from("1526919030474-55").as_i64(), None);
/// assert_ne!(Cursor::from("007"), Cursor::from(7));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Int(i64),
    Text(Arc<str>),
}

impl Cursor {
    /// Returns the cursor as an integer, or `None` if it is other text.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self.0 {
            Repr::Int(id) => Some(id),
            Repr::Text(_) => None,
        }
    }
}

impl From<i64> for Cursor {
    fn from(id: i64) -> Self {
        Self(Repr::Int(id))
    }
}

impl From<&str> for Cursor {
    fn from(text: &str) -> Self {
        match parse_canonical(text) {
            Some(id) => Self(Repr::Int(id)),
            None => Self(Repr::Text(text.into())),
        }
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Int(id) => fmt::Display::fmt(id, f),
            Repr::Text(text) => fmt::Display::fmt(text, f),
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Int(id) => write!(f, "Cursor({id})"),
            Repr::Text(text) => write!(f, "Cursor({text:?})"),
        }
    }
}

/// Parses text that is exactly how the integer would be printed.
fn parse_canonical(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        let cursor = Cursor::from(text);
        assert_eq!(cursor.as_i64(), expected, "{text:?}");
        assert_eq!(cursor.to_string(), text);
    }

    #[test]
    fn integers_are_recognised_only_in_canonical_form() {
        check("0", Some(0));
        check("-1", Some(-1));
        check("9007199254740993", Some(9_007_199_254_740_993));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        check("9223372036854775808", None);
        check("", None);
        check("-", None);
        check("-0", None);
        check("+1", None);
        check("01", None);
        check("1 ", None);
        check("1-0", None);
    }

    #[test]
    fn a_cursor_is_two_words() {
        assert_eq!(size_of::<Cursor>(), 16);
    }
}
