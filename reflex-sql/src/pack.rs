//! The streams that follow one reading, and how long it waits for the last of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use crate::state::Reached;

/// How long, in all, a reading waits for one of its streams. A stream that only had bad luck with its turns comes up in that
/// time; a slow one is left behind, and has a reading of its own then.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub(crate) struct Pack(Mutex<Vec<Member>>);

/// A stream, and how long it will still be waited for.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    reached: Reached,
    pub(crate) patience: Duration,
}

impl Pack {
    pub(crate) fn join(&self, reached: &Reached) {
        self.members().push(Member { reached: reached.clone(), patience: PATIENCE });
    }

    pub(crate) fn leave(&self, reached: &Reached) {
        self.members().retain(|member| !Arc::ptr_eq(&member.reached, reached));
    }

    /// The last stream that is waited for, of those at `start` or after it.
    pub(crate) fn last(&self, start: i64) -> Option<Member> {
        let members = self.members();
        let waited_for = members.iter().filter(|member| !member.patience.is_zero() && member.position() >= start);
        waited_for.min_by_key(|member| member.position()).cloned()
    }

    /// Takes a wait for a stream from what is left of the patience with it.
    pub(crate) fn waited_for(&self, waited: &Member, time: Duration) {
        for member in self.members().iter_mut().filter(|member| Arc::ptr_eq(&member.reached, &waited.reached)) {
            member.patience = member.patience.saturating_sub(time);
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    pub(crate) fn position(&self) -> i64 {
        self.reached.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_in_the_window_is_waited_for_until_the_patience_with_it_ends() {
        let (pack, [one, two, three]) = (Pack::default(), [5, 7, 9].map(|position| Reached::new(position.into())));
        for reached in [&one, &two, &three] {
            pack.join(reached);
        }
        let last = |start| pack.last(start).map(|member| member.position());
        assert_eq!((last(0), last(6), last(10)), (Some(5), Some(7), None));
        let member = pack.last(0).unwrap();
        pack.waited_for(&member, PATIENCE / 2);
        assert_eq!(pack.last(0).unwrap().patience, PATIENCE / 2);
        pack.waited_for(&member, PATIENCE);
        assert_eq!(last(0), Some(7));
        pack.leave(&two);
        assert_eq!(last(0), Some(9));
    }
}
