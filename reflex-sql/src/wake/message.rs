use std::fmt;

/// What goes through a topic, with the number of who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// There may be something to read.
    Hint(u64),
    /// A test whether messages arrive, of concern to the sender alone.
    Probe(u64),
}

impl Message {
    /// Whatever is no message of ours, a `NOTIFY` by hand for example, is a hint of somebody else.
    pub(crate) fn is_hint_of_another(text: &str, me: u64) -> bool {
        match Self::parse(text) {
            Some(Self::Hint(from)) => from != me,
            Some(Self::Probe(_)) => false,
            None => true,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let from = text.split_once(' ')?.1.parse().ok()?;
        // A number can be spelt in other ways than ours.
        [Self::Hint(from), Self::Probe(from)].into_iter().find(|message| message.to_string() == text)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hint(from) => write!(f, "hint {from}"),
            Self::Probe(from) => write!(f, "probe {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(Message::is_hint_of_another(text, 7), expected, "{text:?}");
    }

    #[test]
    fn only_hints_of_others_say_that_there_is_something_to_read() {
        check(&Message::Hint(8).to_string(), true);
        check(&Message::Hint(7).to_string(), false);
        check(&Message::Probe(8).to_string(), false);
        check(&Message::Probe(7).to_string(), false);
        check("", true);
        check("hint", true);
        check("hint x", true);
        check("anything else 7", true);
        check("hint 07", true);
        check("probe +7", true);
    }
}
