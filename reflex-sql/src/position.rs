//! Where the cursor of a transactional consumer is, as far as this process knows. No I/O.

use reflex_core::Cursor;

/// What is known about one consumer's cursor.
#[derive(Debug, Default)]
pub(crate) struct Position {
    /// What is stored; the outer `None` until it was read.
    stored: Option<Option<Cursor>>,
    /// A write whose outcome is not known.
    doubtful: Option<Move>,
    /// A transaction whose outcome was not known, and which was found committed.
    found: Option<Move>,
    /// The last cursor that a transaction stored since a run began.
    settled: Option<Cursor>,
    /// The last commit that no later write has confirmed.
    unconfirmed: Option<Move>,
}

/// A step of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: Option<Cursor>,
    pub(crate) to: Cursor,
}

/// What is to be done with an input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The cursor was not read.
    Read,
    /// The cursor is here: move it, and handle the input.
    Move(Option<Cursor>),
    /// A transaction has handled it.
    Done,
    /// It is not after the cursor.
    Behind(Cursor),
}

/// What a look at the table says about the last commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The cursor is where it should be.
    Confirmed,
    /// The transaction did not take effect.
    Undone,
    /// Somebody else moved the cursor.
    Foreign,
}

impl Position {
    /// A run begins with this cursor.
    pub(crate) fn begin(&mut self, stored: Option<Cursor>) {
        self.read(stored);
        self.found = None;
        self.settled = None;
        self.unconfirmed = None;
    }

    /// The cursor was read. A doubtful write that is not there may still come.
    pub(crate) fn read(&mut self, stored: Option<Cursor>) {
        if let Some(done) = self.doubtful.take_if(|doubtful| Some(&doubtful.to) == stored.as_ref()) {
            self.settled = Some(done.to.clone());
            self.found = Some(done);
        }
        self.stored = Some(stored);
    }

    /// What a write whose outcome is not known stores, if it does.
    pub(crate) fn doubtful(&self) -> Option<&Cursor> {
        self.doubtful.as_ref().map(|doubtful| &doubtful.to)
    }

    pub(crate) fn plan(&self, first: &Cursor, last: &Cursor) -> Plan {
        match &self.stored {
            _ if self.found.as_ref().is_some_and(|found| found.covers(first, last)) => Plan::Done,
            None => Plan::Read,
            Some(Some(stored)) if reaches(stored, first) => Plan::Behind(stored.clone()),
            Some(stored) => Plan::Move(stored.clone()),
        }
    }

    /// What is stored, or `None` if it was not read.
    pub(crate) fn stored(&self) -> Option<&Option<Cursor>> {
        self.stored.as_ref()
    }

    /// Whether a transaction of this run has stored this cursor or a later one.
    pub(crate) fn is_settled(&self, cursor: &Cursor) -> bool {
        self.settled.as_ref().is_some_and(|settled| reaches(settled, cursor))
    }

    /// A write is under way. Until more is heard of it, it may be done or not. Returns an earlier one of the kind.
    pub(crate) fn doubt(&mut self, step: Move) -> Option<Move> {
        self.doubtful.replace(step)
    }

    /// The write was refused, so only the earlier one is in doubt.
    pub(crate) fn refused(&mut self, earlier: Option<Move>) {
        self.doubtful = earlier;
    }

    /// The transaction was committed.
    pub(crate) fn committed(&mut self, step: Move) {
        self.moved(step.to.clone());
        self.settled = Some(step.to.clone());
        self.unconfirmed = Some(step);
    }

    /// The cursor was moved by itself.
    pub(crate) fn moved(&mut self, to: Cursor) {
        self.stored = Some(Some(to));
        self.doubtful = None;
        self.found = None;
        self.unconfirmed = None;
    }

    /// Whether nothing has confirmed the last commit yet.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Holds what is stored against the last commit.
    pub(crate) fn confirm(&mut self, stored: Option<&Cursor>) -> Finding {
        match self.unconfirmed.take() {
            Some(last) if last.from.as_ref() == stored => Finding::Undone,
            _ if self.stored.as_ref().is_some_and(|believed| believed.as_ref() == stored) => Finding::Confirmed,
            _ => Finding::Foreign,
        }
    }
}

impl Move {
    fn covers(&self, first: &Cursor, last: &Cursor) -> bool {
        reaches(&self.to, last) && !self.from.as_ref().is_some_and(|from| reaches(from, first))
    }
}

/// Whether the stream has still to deliver an event to who stored this cursor. Only integers have an order.
pub(crate) fn is_ahead(event: &Cursor, stored: Option<&Cursor>) -> bool {
    match (stored, event.as_i64()) {
        (None, _) => true,
        (Some(stored), Some(event)) => stored.as_i64().is_some_and(|stored| event > stored),
        (Some(_), None) => false,
    }
}

/// Whether a cursor at `position` has passed `cursor`. Text has no order: it has passed only itself.
fn reaches(position: &Cursor, cursor: &Cursor) -> bool {
    match (position.as_i64(), cursor.as_i64()) {
        (Some(position), Some(cursor)) => cursor <= position,
        _ => position == cursor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stored: i64) -> Position {
        let mut position = Position::default();
        position.begin(Some(stored.into()));
        position
    }

    fn step(from: i64, to: i64) -> Move {
        Move { from: Some(from.into()), to: to.into() }
    }

    #[track_caller]
    fn check(position: &Position, first: i64, last: i64, plan: Plan) {
        assert_eq!(position.plan(&first.into(), &last.into()), plan);
    }

    #[test]
    fn only_what_is_after_the_cursor_is_handled() {
        check(&Position::default(), 1, 1, Plan::Read);
        let mut none = Position::default();
        none.begin(None);
        check(&none, 1, 3, Plan::Move(None));
        check(&at(5), 6, 9, Plan::Move(Some(5.into())));
        check(&at(5), 5, 9, Plan::Behind(5.into()));
        check(&at(5), 2, 2, Plan::Behind(5.into()));
    }

    #[test]
    fn text_has_passed_only_itself() {
        let mut text = Position::default();
        text.begin(Some("b-1".into()));
        assert_eq!(text.plan(&"a-1".into(), &"a-1".into()), Plan::Move(Some("b-1".into())));
        assert_eq!(text.plan(&"b-1".into(), &"c-1".into()), Plan::Behind("b-1".into()));
    }

    #[test]
    fn a_commit_that_was_found_done_covers_the_parts_of_its_input() {
        let mut position = at(5);
        position.doubt(step(5, 9));
        assert!(position.doubtful().is_some());
        position.read(Some(9.into()));
        assert!(position.doubtful().is_none() && position.is_settled(&9.into()));
        check(&position, 6, 7, Plan::Done);
        check(&position, 8, 9, Plan::Done);
        // An event from before it is no part of it.
        check(&position, 5, 5, Plan::Behind(9.into()));
        check(&position, 10, 11, Plan::Move(Some(9.into())));
        position.committed(step(9, 11));
        check(&position, 8, 9, Plan::Behind(11.into()));
    }

    #[test]
    fn a_commit_that_is_not_there_may_still_come() {
        let mut position = at(5);
        position.doubt(step(5, 9));
        position.read(Some(5.into()));
        assert!(position.doubtful().is_some());
        check(&position, 6, 9, Plan::Move(Some(5.into())));
        position.begin(Some(9.into()));
        assert!(position.doubtful().is_none() && !position.is_settled(&9.into()));
        check(&position, 9, 9, Plan::Behind(9.into()));
    }

    #[test]
    fn a_transaction_settles_what_it_passes() {
        let mut position = at(5);
        position.committed(step(5, 9));
        assert!(position.is_settled(&9.into()) && position.is_settled(&7.into()) && !position.is_settled(&10.into()));
        position.moved(12.into());
        assert!(!position.is_settled(&12.into()));
    }

    #[test]
    fn the_last_commit_is_held_against_the_table() {
        let commit = || {
            let mut position = at(5);
            position.committed(step(5, 9));
            position
        };
        assert_eq!(commit().confirm(Some(&9.into())), Finding::Confirmed);
        assert_eq!(commit().confirm(Some(&5.into())), Finding::Undone);
        assert_eq!(commit().confirm(Some(&12.into())), Finding::Foreign);
        assert_eq!(commit().confirm(None), Finding::Foreign);
        let mut position = commit();
        position.moved(12.into());
        assert!(!position.is_unconfirmed());
    }
}
