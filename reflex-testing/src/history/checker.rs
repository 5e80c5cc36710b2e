use std::ops::Range;

use super::{Report, Violation, Violations};

/// Works through the sessions one after the other. An event is known by its place among the sorted committed ids.
pub(super) struct Checker {
    ids: Vec<i64>,
    /// The last session that delivered each event, counted from 1; 0 for none.
    delivered_by: Vec<u32>,
    /// The events that a session passed over and never came back to.
    passed_over: Vec<bool>,
    /// Where the history begins.
    origin: usize,
    /// The first place that no session has reached.
    reached: usize,
    sessions: u32,
    repeats: usize,
    found: Violations,
}

/// Where one session is.
struct Position {
    /// The first place after the cursor that it began with, if that is known.
    begin: Option<usize>,
    /// The place that has to come next; `None` until the first event tells.
    next: Option<usize>,
    jumps: Vec<Range<usize>>,
}

impl Checker {
    pub(super) fn new(committed: &[i64]) -> Self {
        let mut ids = committed.to_vec();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            panic!("id {} is listed as committed twice", pair[0]);
        }
        Self {
            delivered_by: vec![0; ids.len()],
            passed_over: vec![false; ids.len()],
            origin: 0,
            reached: 0,
            sessions: 0,
            repeats: 0,
            found: Violations::none(ids.len()),
            ids,
        }
    }

    pub(super) fn begin_after(&mut self, cursor: i64) {
        self.origin = self.first_after(cursor);
        self.reached = self.origin;
    }

    fn first_after(&self, cursor: i64) -> usize {
        self.ids.partition_point(|&id| id <= cursor)
    }

    pub(super) fn session(&mut self, cursor: Option<i64>, seen: &[i64]) {
        self.sessions = self.sessions.checked_add(1).expect("there are fewer than 4 billion sessions");
        let begin = cursor.map(|cursor| self.first_after(cursor));
        let mut position = Position { begin, next: begin, jumps: Vec::new() };
        for &id in seen {
            match self.place(id, position.next) {
                Some(at) => self.delivery(&mut position, at),
                None => self.found.add(Violation::Phantom, id),
            }
        }
        self.reached = self.reached.max(position.next.unwrap_or(0));
        // What came late in the same session was counted as disorder.
        for at in position.jumps.into_iter().flatten() {
            self.passed_over[at] |= self.delivered_by[at] != self.sessions;
        }
    }

    /// Takes the effects, whose order does not matter, for one session.
    pub(super) fn effects(&mut self, effects: &[i64]) {
        self.sessions = 1;
        for &id in effects {
            match self.place(id, None) {
                Some(at) if self.delivered_by[at] == 0 => self.delivered_by[at] = 1,
                Some(_) => self.found.add(Violation::Duplicate, id),
                None => self.found.add(Violation::Phantom, id),
            }
        }
    }

    fn delivery(&mut self, position: &mut Position, at: usize) {
        let next = *position.next.get_or_insert(at.min(self.reached));
        let before = std::mem::replace(&mut self.delivered_by[at], self.sessions);
        self.repeats += usize::from(before != 0);
        let wrong = if before == self.sessions {
            Violation::Duplicate
        } else if position.begin.is_some_and(|begin| at < begin) {
            Violation::Repeated
        } else if at < next {
            Violation::Disorder
        } else {
            position.next = Some(at + 1);
            position.jumps.extend((at > next).then_some(next..at));
            return;
        };
        self.found.add(wrong, self.ids[at]);
    }

    /// Finds an event, at the expected place first.
    fn place(&self, id: i64, expected: Option<usize>) -> Option<usize> {
        match expected {
            Some(at) if self.ids.get(at) == Some(&id) => Some(at),
            _ => self.ids.binary_search(&id).ok(),
        }
    }

    pub(super) fn finish(mut self, deliveries: usize) -> Result<Report, Violations> {
        for at in self.origin..self.ids.len() {
            if self.delivered_by[at] == 0 {
                self.found.add(Violation::Lost, self.ids[at]);
            } else if self.passed_over[at] {
                self.found.add(Violation::Skipped, self.ids[at]);
            }
        }
        if self.found.any() {
            return Err(self.found);
        }
        Ok(Report {
            committed: self.ids.len() - self.origin,
            deliveries,
            repeats: self.repeats,
            sessions: self.sessions as usize,
        })
    }
}
