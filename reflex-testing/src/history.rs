mod checker;

use std::{error::Error, fmt};

use self::checker::Checker;

/// How many examples of each violation are kept.
const EXAMPLES: usize = 10;

/// What a consumer was handed, in the order in which it was handed over, to hold against what was committed.
///
/// A history consists of sessions: one uninterrupted stream is one session, and every restart begins another. Within a
/// session each event comes once and in order. A session repeats events of an earlier one at most if it began before them:
/// after a restart, delivery is at least once. Between the sessions nothing may be missing.
///
/// It costs 8 bytes per delivery, and 13 bytes per committed event while it is checked.
///
/// # Examples
///
/// ```
/// use reflex_testing::{History, Violation};
///
/// let mut history = History::new();
/// history.extend([1, 2, 4]);
/// history.resume_after(2);
/// history.extend([4, 7, 8]);
/// assert_eq!(history.check(&[1, 2, 4, 7, 8])?.repeats, 1);
///
/// let violations = history.check(&[1, 2, 3, 4, 7, 8]).unwrap_err();
/// assert_eq!(violations.count(Violation::Lost), 1);
/// assert_eq!(violations.examples(Violation::Lost), [3]);
/// # Ok::<(), reflex_testing::Violations>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct History {
    seen: Vec<i64>,
    /// The sessions after the first.
    resumed: Vec<Resumed>,
}

#[derive(Clone, Copy, Debug)]
struct Resumed {
    /// How many events had been seen before.
    at: usize,
    /// The cursor that it began after, where that is known.
    cursor: Option<i64>,
}

impl History {
    /// A history with one session, which begins with the first event that was committed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that an event was handed over.
    pub fn see(&mut self, id: i64) {
        self.seen.push(id);
    }

    /// Begins the next session; it begins anywhere that leaves nothing out.
    pub fn resume(&mut self) {
        self.resumed.push(Resumed { at: self.seen.len(), cursor: None });
    }

    /// Begins the next session; it must begin with the first event after this cursor.
    ///
    /// As the first call it says where the first session begins: what was committed up to there is not part of the history.
    pub fn resume_after(&mut self, cursor: i64) {
        self.resumed.push(Resumed { at: self.seen.len(), cursor: Some(cursor) });
    }

    /// Checks the history against the ids of everything that was committed, in any order.
    ///
    /// # Errors
    ///
    /// If an event was lost, made up, repeated within a session, or handed over out of order.
    ///
    /// # Panics
    ///
    /// If an id is listed as committed twice, or there are more than 4 billion sessions.
    pub fn check(&self, committed: &[i64]) -> Result<Report, Violations> {
        let mut checker = Checker::new(committed);
        let mut sessions = self.resumed.clone();
        if sessions.first().is_none_or(|first| first.at > 0) {
            sessions.insert(0, Resumed { at: 0, cursor: None });
        }
        if let Some(cursor) = sessions[0].cursor {
            checker.begin_after(cursor);
        }
        let ends = sessions.iter().skip(1).map(|next| next.at).chain([self.seen.len()]);
        for (session, end) in sessions.iter().zip(ends) {
            checker.session(session.cursor, &self.seen[session.at..end]);
        }
        checker.finish(self.seen.len())
    }
}

impl Extend<i64> for History {
    fn extend<I: IntoIterator<Item = i64>>(&mut self, ids: I) {
        self.seen.extend(ids);
    }
}

/// Checks that the effects of a consumer are those of each committed event, once; their order does not matter.
///
/// For consumers whose effects are exactly-once: hand in the event id of every effect.
///
/// # Errors
///
/// If an event had no effect, several, or an effect has no event.
///
/// # Panics
///
/// If an id is listed as committed twice.
///
/// # Examples
///
/// ```
/// use reflex_testing::{Violation, check_effects};
///
/// assert!(check_effects(&[1, 2, 3], &[3, 1, 2]).is_ok());
/// let violations = check_effects(&[1, 2, 3], &[1, 1, 2]).unwrap_err();
/// assert_eq!(violations.examples(Violation::Duplicate), [1]);
/// assert_eq!(violations.to_string(), "1 of 3 committed events lost (3); 1 handed over twice (1)");
/// ```
pub fn check_effects(committed: &[i64], effects: &[i64]) -> Result<Report, Violations> {
    let mut checker = Checker::new(committed);
    checker.effects(effects);
    checker.finish(effects.len())
}

/// What a history holds that passed its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Committed events.
    pub committed: usize,
    /// Times that an event was handed over.
    pub deliveries: usize,
    /// Deliveries of an event that an earlier session had delivered.
    pub repeats: usize,
    /// Sessions, those without a delivery included.
    pub sessions: usize,
}

/// One way in which a history is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A committed event was never handed over.
    Lost,
    /// An event was handed over that was not committed.
    Phantom,
    /// An event was handed over twice within a session.
    Duplicate,
    /// An event was handed over after a later one of the same session.
    Disorder,
    /// A session passed over an event that another session delivered.
    Skipped,
    /// A session delivered an event although it began after it.
    Repeated,
}

impl Violation {
    const ALL: [Self; 6] = [Self::Lost, Self::Phantom, Self::Duplicate, Self::Disorder, Self::Skipped, Self::Repeated];

    fn describe(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "handed over without being committed",
            Self::Duplicate => "handed over twice",
            Self::Disorder => "handed over after a later one",
            Self::Skipped => "passed over by a session",
            Self::Repeated => "handed over although the cursor was past it",
        }
    }
}

/// Everything that is wrong with a history: how many of each kind, and the ids of the first few.
#[derive(Clone, PartialEq, Eq)]
pub struct Violations {
    committed: usize,
    /// One for each kind, in its order.
    kinds: Vec<Found>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    count: usize,
    examples: Vec<i64>,
}

impl Violations {
    /// How many events are wrong in this way.
    #[must_use]
    pub fn count(&self, violation: Violation) -> usize {
        self.kinds[violation as usize].count
    }

    /// The ids of the first ten of them.
    #[must_use]
    pub fn examples(&self, violation: Violation) -> &[i64] {
        &self.kinds[violation as usize].examples
    }

    fn none(committed: usize) -> Self {
        Self { committed, kinds: vec![Found::default(); Violation::ALL.len()] }
    }

    fn any(&self) -> bool {
        self.kinds.iter().any(|found| found.count > 0)
    }

    fn add(&mut self, violation: Violation, id: i64) {
        let found = &mut self.kinds[violation as usize];
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(id);
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for violation in Violation::ALL {
            let Found { count, examples } = &self.kinds[violation as usize];
            if *count == 0 {
                continue;
            }
            write!(f, "{separator}{count} ")?;
            if violation == Violation::Lost {
                write!(f, "of {} committed events ", self.committed)?;
            }
            let examples: Vec<_> = examples.iter().map(i64::to_string).collect();
            let more = if *count > EXAMPLES { ", …" } else { "" };
            write!(f, "{} ({}{more})", violation.describe(), examples.join(", "))?;
            separator = "; ";
        }
        Ok(())
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Violations({self})")
    }
}

impl Error for Violations {}

#[cfg(test)]
mod tests {
    use super::Violation::{Disorder, Duplicate, Lost, Phantom, Repeated, Skipped};
    use super::*;

    const COMMITTED: [i64; 6] = [1, 2, 3, 5, 8, 9];

    /// One session after the other, each with the cursor that it resumed after, where that is known.
    fn history(sessions: &[(Option<i64>, &[i64])]) -> History {
        let mut history = History::new();
        for (cursor, seen) in sessions {
            match cursor {
                Some(cursor) => history.resume_after(*cursor),
                None => history.resume(),
            }
            history.extend(seen.iter().copied());
        }
        history
    }

    #[track_caller]
    fn check_ok(sessions: &[(Option<i64>, &[i64])], repeats: usize) {
        assert_eq!(history(sessions).check(&COMMITTED).unwrap().repeats, repeats);
    }

    #[track_caller]
    fn check_wrong(sessions: &[(Option<i64>, &[i64])], expected: &[(Violation, &[i64])]) {
        let violations = history(sessions).check(&COMMITTED).unwrap_err();
        for violation in Violation::ALL {
            let ids = expected.iter().find(|(kind, _)| *kind == violation).map_or(&[][..], |(_, ids)| ids);
            assert_eq!(violations.examples(violation), ids, "{violation:?}: {violations}");
            assert_eq!(violations.count(violation), ids.len(), "{violation:?}: {violations}");
        }
    }

    #[test]
    fn what_a_correct_consumer_sees_passes() {
        check_ok(&[(None, &[1, 2, 3, 5, 8, 9])], 0);
        check_ok(&[(None, &[1, 2, 3]), (None, &[]), (None, &[5, 8, 9])], 0);
        check_ok(&[(None, &[1, 2, 3]), (None, &[2, 3, 5]), (None, &[1, 2, 3, 5, 8, 9])], 6);
        check_ok(&[(None, &[1, 2, 3]), (Some(1), &[2, 3, 5]), (Some(5), &[8, 9])], 2);
        check_ok(&[(Some(2), &[3, 5]), (Some(3), &[5, 8, 9])], 1);
        check_ok(&[(Some(2), &[]), (Some(2), &[3, 5, 8, 9])], 0);
    }

    #[test]
    fn one_session_gets_each_event_once_and_in_order() {
        check_wrong(&[(None, &[1, 2, 5, 8])], &[(Lost, &[3, 9])]);
        check_wrong(&[(None, &[2, 3, 5, 8, 9])], &[(Lost, &[1])]);
        check_wrong(&[(None, &[1, 2, 3, 4, 5, 8, 9])], &[(Phantom, &[4])]);
        check_wrong(&[(None, &[1, 2, 2, 3, 5, 8, 9, 1])], &[(Duplicate, &[2, 1])]);
        check_wrong(&[(None, &[1, 3, 2, 5, 8, 9])], &[(Disorder, &[2])]);
        check_wrong(&[(None, &[])], &[(Lost, &COMMITTED)]);
    }

    #[test]
    fn a_restart_hides_nothing() {
        check_wrong(&[(None, &[1, 2, 5]), (None, &[3, 5, 8, 9])], &[(Skipped, &[3])]);
        check_wrong(&[(None, &[1, 2]), (None, &[5, 8, 9])], &[(Lost, &[3])]);
        check_wrong(&[(None, &[1, 2]), (None, &[5, 8]), (None, &[3, 5, 8, 9])], &[(Skipped, &[3])]);
        check_wrong(&[(None, &[1, 2, 3]), (None, &[1, 3, 5, 8, 9])], &[(Skipped, &[2])]);
        check_wrong(&[(None, &[1, 2, 3]), (None, &[3, 5, 2, 8, 9])], &[(Disorder, &[2])]);
        check_wrong(&[(Some(1), &[]), (Some(3), &[5, 8, 9])], &[(Lost, &[2, 3])]);
    }

    #[test]
    fn a_session_begins_right_after_its_cursor() {
        check_wrong(&[(None, &[1, 2, 3]), (Some(2), &[2, 3, 5, 8, 9])], &[(Repeated, &[2])]);
        check_wrong(&[(None, &[1, 2, 3, 5]), (Some(2), &[5, 8, 9])], &[(Skipped, &[3])]);
        check_wrong(&[(None, &[1, 2]), (Some(3), &[5, 8, 9])], &[(Lost, &[3])]);
    }

    #[test]
    fn effects_are_those_of_each_event_once() {
        assert!(check_effects(&COMMITTED, &[9, 8, 5, 3, 2, 1]).is_ok());
        let violations = check_effects(&COMMITTED, &[1, 2, 2, 2, 4, 5, 8, 9]).unwrap_err();
        assert_eq!(violations.examples(Lost), [3]);
        assert_eq!(violations.examples(Duplicate), [2, 2]);
        assert_eq!(violations.examples(Phantom), [4]);
    }

    #[test]
    fn violations_are_counted_and_only_the_first_are_listed() {
        let committed: Vec<i64> = (1..=1_000).collect();
        let violations = History::new().check(&committed).unwrap_err();
        let text = "1000 of 1000 committed events lost (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)";
        assert_eq!(violations.to_string(), text);
    }
}
