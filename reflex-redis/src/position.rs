use crate::entry_id::EntryId;

/// What a stream was like at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The highest id that was ever given.
    pub(crate) last: EntryId,
    /// How many entries were ever added.
    pub(crate) added: u64,
    /// How many entries are there.
    pub(crate) length: u64,
    /// The lowest id that is there.
    pub(crate) first: Option<EntryId>,
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) after: EntryId,
    /// All entries ever added but those that were there after this position: what is added later and what was there has to
    /// be read. `None` as long as it is not known.
    passed: Option<u64>,
}

/// Why the entries after a position cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// The position is above all ids.
    Ahead,
    /// So many entries after it are gone; `None` if there may have been some.
    Trimmed(Option<u64>),
    /// The stream is another one.
    Replaced,
}

impl Position {
    /// Before everything that is there.
    pub(crate) fn beginning(now: &Snapshot) -> Self {
        Self { after: EntryId::ZERO, passed: Some(now.added.saturating_sub(now.length)) }
    }

    /// After everything that is there.
    pub(crate) fn head(now: &Snapshot) -> Self {
        Self { after: now.last, passed: Some(now.added) }
    }

    /// Where a cursor says.
    pub(crate) fn after(after: EntryId) -> Self {
        let passed = (after == EntryId::ZERO).then_some(0);
        Self { after, passed }
    }

    /// Proves that no entry after this position was trimmed away.
    ///
    /// Trimming takes entries from the front. As long as one is left that is not after the position, none after it is gone.
    /// Otherwise only counting helps.
    pub(crate) fn check(&self, now: &Snapshot) -> Result<(), Gap> {
        if self.after > now.last {
            return Err(Gap::Ahead);
        }
        let expected = match self.passed {
            Some(passed) => Some(now.added.checked_sub(passed).ok_or(Gap::Replaced)?),
            None => None,
        };
        if self.after == now.last || now.first.is_some_and(|first| first <= self.after) {
            return Ok(());
        }
        match expected.map(|expected| expected.checked_sub(now.length)) {
            Some(Some(0)) => Ok(()),
            Some(Some(lost)) => Err(Gap::Trimmed(Some(lost))),
            Some(None) => Err(Gap::Replaced),
            None => Err(Gap::Trimmed(None)),
        }
    }

    /// Moves to `last`, after so many entries were read; `is_end` if there were no more.
    pub(crate) fn advance(&mut self, now: &Snapshot, count: u64, last: Option<EntryId>, is_end: bool) {
        let all_are_after = now.first.is_none_or(|first| first > self.after);
        let passed = if all_are_after { now.added.checked_sub(now.length) } else { self.passed };
        self.passed = if is_end { Some(now.added) } else { passed.map(|passed| passed + count) };
        self.after = last.unwrap_or(self.after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> EntryId {
        format!("{n}-0").parse().unwrap()
    }

    /// A stream that was given the ids 1 to `last` and has `first` to `last` left.
    fn trimmed(first: u64, last: u64) -> Snapshot {
        let length = (last + 1).saturating_sub(first);
        Snapshot { last: id(last), added: last, length, first: (length > 0).then(|| id(first)) }
    }

    #[track_caller]
    fn check(position: &Position, now: Snapshot, expected: Result<(), Gap>) {
        assert_eq!(position.check(&now), expected, "{position:?} {now:?}");
    }

    #[test]
    fn a_cursor_is_safe_while_something_not_after_it_is_left() {
        let cursor = Position::after(id(5));
        check(&cursor, trimmed(1, 9), Ok(()));
        check(&cursor, trimmed(5, 9), Ok(()));
        check(&cursor, trimmed(6, 9), Err(Gap::Trimmed(None)));
        check(&cursor, trimmed(10, 9), Err(Gap::Trimmed(None)));
        check(&cursor, trimmed(6, 5), Ok(()));
        check(&cursor, trimmed(1, 4), Err(Gap::Ahead));
        check(&cursor, Snapshot::default(), Err(Gap::Ahead));
    }

    #[test]
    fn the_cursor_of_an_empty_stream_is_before_all_that_was_ever_added() {
        let cursor = Position::after(EntryId::ZERO);
        check(&cursor, Snapshot::default(), Ok(()));
        check(&cursor, trimmed(1, 9), Ok(()));
        check(&cursor, trimmed(3, 9), Err(Gap::Trimmed(Some(2))));
        check(&cursor, trimmed(10, 9), Err(Gap::Trimmed(Some(9))));
    }

    #[test]
    fn the_beginning_is_what_is_there_when_it_is_pinned() {
        let position = Position::beginning(&trimmed(4, 9));
        check(&position, trimmed(4, 12), Ok(()));
        check(&position, trimmed(6, 12), Err(Gap::Trimmed(Some(2))));
    }

    #[test]
    fn from_the_head_counting_proves_it() {
        let position = Position::head(&trimmed(4, 9));
        check(&position, trimmed(10, 9), Ok(()));
        check(&position, trimmed(10, 20), Ok(()));
        check(&position, trimmed(11, 20), Err(Gap::Trimmed(Some(1))));
        check(&position, trimmed(21, 20), Err(Gap::Trimmed(Some(11))));
    }

    #[test]
    fn a_reader_keeps_counting() {
        let mut position = Position::beginning(&trimmed(4, 9));
        position.advance(&trimmed(4, 9), 3, Some(id(6)), false);
        check(&position, trimmed(7, 9), Ok(()));
        check(&position, trimmed(8, 9), Err(Gap::Trimmed(Some(1))));
        position.advance(&trimmed(7, 12), 2, Some(id(8)), false);
        check(&position, trimmed(9, 20), Ok(()));
        check(&position, trimmed(10, 20), Err(Gap::Trimmed(Some(1))));
        position.advance(&trimmed(9, 20), 12, Some(id(20)), true);
        check(&position, trimmed(21, 30), Ok(()));
        check(&position, trimmed(22, 30), Err(Gap::Trimmed(Some(1))));
    }

    #[test]
    fn a_cursor_begins_to_count_at_the_end() {
        let mut position = Position::after(id(5));
        position.advance(&trimmed(5, 9), 2, Some(id(7)), false);
        check(&position, trimmed(8, 9), Err(Gap::Trimmed(None)));
        position.advance(&trimmed(5, 9), 2, Some(id(9)), true);
        check(&position, trimmed(10, 12), Ok(()));
        check(&position, trimmed(11, 12), Err(Gap::Trimmed(Some(1))));
    }

    #[test]
    fn entries_deleted_one_by_one_before_the_position_do_not_matter() {
        let now = Snapshot { last: id(9), added: 9, length: 4, first: Some(id(4)) };
        let mut position = Position::beginning(&now);
        position.advance(&now, 2, Some(id(6)), false);
        check(&position, Snapshot { length: 2, first: Some(id(8)), ..now }, Ok(()));
        check(&position, Snapshot { length: 1, first: Some(id(9)), ..now }, Err(Gap::Trimmed(Some(1))));
    }

    #[test]
    fn counters_that_went_back_are_those_of_another_stream() {
        let position = Position::head(&trimmed(1, 9));
        check(&position, Snapshot { last: id(30), added: 3, length: 3, first: Some(id(28)) }, Err(Gap::Replaced));
        check(&position, Snapshot { last: id(30), added: 3, length: 3, first: Some(id(2)) }, Err(Gap::Replaced));
        let position = Position::head(&trimmed(1, 3));
        check(&position, Snapshot { last: id(30), added: 3, length: 3, first: Some(id(28)) }, Err(Gap::Replaced));
    }
}
