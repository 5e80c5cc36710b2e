use std::{fmt, str::FromStr};

/// The id of an entry of a stream: milliseconds since 1970 and a number within them. Ids ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId {
    pub(crate) millis: u64,
    sequence: u64,
}

impl EntryId {
    /// Below the id of every entry.
    pub(crate) const ZERO: Self = Self { millis: 0, sequence: 0 };
}

/// Only the form in which Redis prints ids.
impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, sequence) = text.split_once('-').ok_or(())?;
        Ok(Self { millis: number(millis).ok_or(())?, sequence: number(sequence).ok_or(())? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

fn number(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || digits.starts_with(|c: char| matches!(c, '1'..='9'));
    if canonical { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, valid: bool) {
        let id = text.parse::<EntryId>();
        assert_eq!(id.map(|id| id.to_string()), if valid { Ok(text.to_owned()) } else { Err(()) }, "{text:?}");
    }

    #[test]
    fn only_what_redis_prints_is_an_id() {
        check("0-0", true);
        check("1526919030474-55", true);
        check("18446744073709551615-18446744073709551615", true);
        check("18446744073709551616-0", false);
        check("1526919030474", false);
        check("-1-0", false);
        check("1--0", false);
        check("+1-0", false);
        check("01-0", false);
        check("1-00", false);
        check("1-0-0", false);
        check("1-", false);
        check("", false);
        check("$", false);
        check("*", false);
    }

    #[test]
    fn ids_are_ordered_as_numbers() {
        let id = |text: &str| text.parse::<EntryId>().unwrap();
        assert!(id("9-9") < id("10-0"));
        assert!(id("10-9") < id("10-10"));
    }
}
