use std::collections::VecDeque;

use reflex_core::Cursor;

/// The events that were handed out and may be done in any order: tells how far all of them are done.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The number of the first event in `events`.
    first: u64,
    events: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    cursor: Cursor,
    done: bool,
}

impl Window {
    /// Adds the next event of the stream and returns its number.
    pub(crate) fn push(&mut self, cursor: Cursor) -> u64 {
        self.events.push_back(Slot { cursor, done: false });
        self.first + self.events.len() as u64 - 1
    }

    /// Notes that an event is done. Returns whether it is the first one.
    pub(crate) fn done(&mut self, number: u64) -> bool {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.events.get_mut(at)) {
            slot.done = true;
        }
        number == self.first
    }

    /// Whether [`take_done`](Window::take_done) has something to take.
    pub(crate) fn is_due(&self) -> bool {
        self.events.front().is_some_and(|slot| slot.done)
    }

    /// Takes the done events in front of the first one that is not. Returns how many and the cursor of the last.
    pub(crate) fn take_done(&mut self) -> Option<(usize, Cursor)> {
        let mut last = None;
        let mut count = 0;
        while let Some(slot) = self.events.pop_front_if(|slot| slot.done) {
            last = Some(slot.cursor);
            count += 1;
        }
        self.first += count as u64;
        last.map(|cursor| (count, cursor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

    use super::*;

    #[test]
    fn nothing_is_taken_before_the_first_is_done() {
        let mut window = Window::default();
        let numbers: Vec<_> = ["1-0", "1-1", "2-0"].map(|id| window.push(id.into())).into();
        assert!(!window.done(numbers[2]) && !window.done(numbers[1]));
        assert!(!window.is_due() && window.take_done().is_none());
        assert!(window.done(numbers[0]) && window.is_due());
        assert_eq!(window.take_done(), Some((3, "2-0".into())));
        assert_eq!(window.take_done(), None);
    }

    #[test]
    fn what_was_taken_may_be_noted_again() {
        let mut window = Window::default();
        let first = window.push(1.into());
        window.done(first);
        window.take_done();
        let second = window.push(2.into());
        assert!(!window.done(first));
        assert_eq!(window.take_done(), None);
        assert!(window.done(second));
    }

    /// Events are done in random order; the model is the set of those that are not.
    #[test]
    fn takes_what_a_model_takes() {
        let seed = std::env::var("REFLEX_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        println!("REFLEX_TEST_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let (mut window, mut open, mut pushed, mut taken) = (Window::default(), Vec::new(), 0i64, 0);
            for _ in 0..rng.random_range(1..300) {
                match rng.random_range(0..3) {
                    0 => open.extend((0..rng.random_range(1..20)).map(|_| {
                        pushed += 1;
                        (pushed, window.push(pushed.into()))
                    })),
                    1 => {
                        open.shuffle(&mut rng);
                        let left = open.len() - rng.random_range(0..=open.len());
                        for (_, number) in open.drain(left..) {
                            window.done(number);
                        }
                    }
                    _ => {
                        let undone: BTreeSet<_> = open.iter().map(|(id, _)| *id).collect();
                        let done = undone.first().map_or(pushed, |first| first - 1);
                        let expected = (done > taken).then(|| ((done - taken) as usize, done.into()));
                        assert_eq!(window.is_due(), expected.is_some());
                        assert_eq!(window.take_done(), expected);
                        taken = done;
                    }
                }
            }
        }
    }
}
