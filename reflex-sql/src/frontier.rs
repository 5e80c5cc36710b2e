//! The proof that a missing id is dead, without I/O.
//!
//! Ids are drawn in order but become visible at commit, in any order. A reader that meets a missing id must know whether a
//! transaction can still fill it. Two observations decide it: *M*, an id that was visible, and then, read later, *W*, the
//! transactions that could be writing to the table. Every missing id below M was drawn before M became visible, so its
//! owner is in W or has ended. Once everything in W has ended, no id up to M can appear any more.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// A transaction or session that may be writing to the table, as the dialect names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// A session, or one transaction of it where the database tells them apart.
    Session(String),
    /// A prepared transaction that may have no session any more.
    Prepared(String),
}

/// What the dialect saw at one moment.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    pub(crate) active: HashSet<Writer>,
    /// The highest id that the database has handed out, where it tells. No id above it can be proven dead.
    pub(crate) highest_drawn: Option<i64>,
}

/// A proof in progress: M, and what is left of W.
#[derive(Debug)]
struct Frontier {
    highest: i64,
    waiting_for: HashSet<Writer>,
    began: Instant,
}

/// All proofs in progress on one table, and what is proven.
#[derive(Debug, Default)]
pub(crate) struct Frontiers {
    /// Ascending by `highest`.
    open: Vec<Frontier>,
    proven: i64,
    /// How long each proof takes at least, for writers that cannot be seen.
    grace: Duration,
}

/// How many proofs run beside each other. While writers never pause, each look at the table may begin one.
const MAX_OPEN: usize = 64;

impl Frontiers {
    /// Nothing is proven. `grace` is zero wherever every writer can be seen.
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// Every id up to this one is visible to a read that starts now, or dead.
    pub(crate) fn proven(&self) -> i64 {
        self.proven
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The writers that the oldest proof waits for.
    pub(crate) fn blocking(&self) -> Option<&HashSet<Writer>> {
        self.open.first().map(|frontier| &frontier.waiting_for)
    }

    /// Takes in what the dialect saw. `visible` is the highest id that was visible *before* `writers` was read, where there
    /// is a gap below it to be proven. Returns true if more is proven than before.
    pub(crate) fn observe(&mut self, visible: Option<i64>, writers: &Writers) -> bool {
        for frontier in &mut self.open {
            frontier.update(&writers.active);
        }
        self.begin(visible, writers);
        let before = self.proven;
        while let Some(frontier) = self.open.first()
            && frontier.waiting_for.is_empty()
            && frontier.began.elapsed() >= self.grace
        {
            self.proven = self.proven.max(frontier.highest);
            self.open.remove(0);
        }
        self.proven > before
    }

    fn begin(&mut self, visible: Option<i64>, writers: &Writers) {
        let Some(visible) = visible else { return };
        let highest = writers.highest_drawn.map_or(visible, |drawn| drawn.min(visible));
        let begun = self.open.last().map_or(self.proven, |last| last.highest);
        if highest > begun && self.open.len() < MAX_OPEN {
            self.open.push(Frontier { highest, waiting_for: writers.active.clone(), began: Instant::now() });
        }
    }
}

impl Frontier {
    fn update(&mut self, active: &HashSet<Writer>) {
        let sessions = self.sessions();
        self.waiting_for.retain(|writer| active.contains(writer));
        if self.sessions() < sessions {
            // A session that is gone may have left a prepared transaction behind, which holds its ids.
            self.waiting_for.extend(active.iter().filter(|writer| matches!(writer, Writer::Prepared(_))).cloned());
        }
    }

    fn sessions(&self) -> usize {
        self.waiting_for.iter().filter(|writer| matches!(writer, Writer::Session(_))).count()
    }
}

/// How many of these ascending ids may be delivered after `position`: those up to the first missing id that is not proven.
pub(crate) fn deliverable(ids: impl IntoIterator<Item = i64>, position: i64, proven: i64) -> usize {
    let mut previous = position;
    ids.into_iter()
        .take_while(|&id| {
            let settled = settled(id, previous, proven);
            previous = id;
            settled
        })
        .count()
}

/// Whether nothing can come any more between `previous` and the visible `id` that follows it.
pub(crate) fn settled(id: i64, previous: i64, proven: i64) -> bool {
    id - 1 <= previous.max(proven)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> Writer {
        Writer::Session(name.to_owned())
    }

    fn prepared(name: &str) -> Writer {
        Writer::Prepared(name.to_owned())
    }

    fn active<const N: usize>(writers: [Writer; N]) -> Writers {
        Writers { active: writers.into(), highest_drawn: None }
    }

    #[test]
    fn an_id_is_proven_once_every_writer_of_that_moment_has_ended() {
        let mut frontiers = Frontiers::default();
        assert!(!frontiers.observe(Some(9), &active([session("a"), session("b")])));
        assert!(!frontiers.observe(None, &active([session("b"), session("c")])));
        assert_eq!(frontiers.proven(), 0);
        assert!(frontiers.observe(None, &active([session("c")])));
        assert_eq!(frontiers.proven(), 9);
        assert!(!frontiers.is_open());
    }

    #[test]
    fn a_writer_that_comes_back_is_not_waited_for_again() {
        let mut frontiers = Frontiers::default();
        frontiers.observe(Some(9), &active([session("a"), session("b")]));
        frontiers.observe(None, &active([session("b")]));
        assert!(frontiers.observe(None, &active([session("a")])));
    }

    #[test]
    fn without_writers_it_is_proven_at_once() {
        let mut frontiers = Frontiers::default();
        assert!(frontiers.observe(Some(9), &active([])));
        assert_eq!(frontiers.proven(), 9);
        assert!(!frontiers.observe(Some(9), &active([session("a")])));
        assert!(!frontiers.is_open(), "what is proven needs no second proof");
    }

    #[test]
    fn proofs_overlap_and_finish_in_order() {
        let mut frontiers = Frontiers::default();
        frontiers.observe(Some(5), &active([session("slow")]));
        frontiers.observe(Some(8), &active([session("slow"), session("quick")]));
        assert!(!frontiers.observe(None, &active([session("slow")])));
        assert!(frontiers.observe(None, &active([])));
        assert_eq!(frontiers.proven(), 8);
    }

    #[test]
    fn a_prepared_transaction_stands_in_for_its_session() {
        let mut frontiers = Frontiers::default();
        frontiers.observe(Some(9), &active([session("a")]));
        assert!(!frontiers.observe(None, &active([prepared("x")])));
        assert!(!frontiers.observe(None, &active([prepared("x"), prepared("later")])));
        assert!(frontiers.observe(None, &active([prepared("later")])));
    }

    #[test]
    fn a_grace_is_waited_for_on_top() {
        let mut frontiers = Frontiers::new(Duration::from_secs(3_600));
        assert!(!frontiers.observe(Some(9), &active([])));
        assert!(frontiers.is_open());
        frontiers.grace = Duration::ZERO;
        assert!(frontiers.observe(None, &active([])));
    }

    #[test]
    fn ids_that_were_not_drawn_are_never_proven() {
        let mut frontiers = Frontiers::default();
        let writers = Writers { active: HashSet::new(), highest_drawn: Some(5) };
        assert!(frontiers.observe(Some(1_000), &writers));
        assert_eq!(frontiers.proven(), 5);
        assert!(!frontiers.observe(Some(1_000), &writers));
    }

    #[track_caller]
    fn check(ids: &[i64], position: i64, proven: i64, expected: usize) {
        assert_eq!(deliverable(ids.iter().copied(), position, proven), expected, "{ids:?}");
    }

    #[test]
    fn delivery_stops_at_the_first_unproven_gap() {
        check(&[], 0, 0, 0);
        check(&[1, 2, 3], 0, 0, 3);
        check(&[2, 3], 0, 0, 0);
        check(&[2, 3, 5, 7], 0, 1, 2);
        check(&[2, 3, 5, 7], 0, 4, 3);
        check(&[2, 3, 5, 7], 0, 6, 4);
        check(&[6, 8], 5, 100, 2);
        check(&[-3, -2, 1], -4, 0, 3);
    }
}
