use std::{
    cmp::Ordering,
    collections::HashMap,
    sync::{Arc, Mutex},
};

use reflex_core::{Cursor, CursorStore, Error, Result};
use reflex_testing::conformance::{CursorCapabilities, cursor_store};

use crate::check_found;

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    MovesBackwards,
    RefusesButMoves,
    ComparesText,
    ComparesFloats,
    UnchangedSucceeds,
    UnchangedIsBackwards,
    IgnoresCase,
    TrimsNames,
    CutsNames,
    Forgets,
    Races,
    NormalisesText,
    RefusesText,
    NeverFlushes,
    NamesNothing,
}

#[derive(Clone)]
struct Broken {
    cursors: Arc<Mutex<HashMap<String, Cursor>>>,
    flaw: Flaw,
}

impl Broken {
    fn key(&self, consumer: &str) -> String {
        match self.flaw {
            Flaw::IgnoresCase => consumer.to_lowercase(),
            Flaw::TrimsNames => consumer.trim_end().to_owned(),
            Flaw::CutsNames => consumer.chars().take(64).collect(),
            _ => consumer.to_owned(),
        }
    }

    fn compare(&self, new: &Cursor, stored: &Cursor) -> Option<Ordering> {
        let (new_id, stored_id) = (new.as_i64()?, stored.as_i64()?);
        Some(match self.flaw {
            Flaw::MovesBackwards => Ordering::Greater,
            Flaw::ComparesText => new.to_string().cmp(&stored.to_string()),
            Flaw::ComparesFloats => (new_id as f64).total_cmp(&(stored_id as f64)),
            _ => new_id.cmp(&stored_id),
        })
    }

    fn check(&self, consumer: &str, new: &Cursor, stored: &Cursor) -> Result<()> {
        match self.compare(new, stored) {
            Some(Ordering::Less) if self.flaw == Flaw::NamesNothing => {
                Err(Error::cursor_backwards("somebody", &0.into(), &0.into()))
            }
            Some(Ordering::Less) => Err(Error::cursor_backwards(consumer, stored, new)),
            Some(Ordering::Equal) if self.flaw == Flaw::UnchangedSucceeds => Ok(()),
            Some(Ordering::Equal) if self.flaw == Flaw::UnchangedIsBackwards => {
                Err(Error::cursor_backwards(consumer, stored, new))
            }
            Some(Ordering::Equal) => Err(Error::cursor_unchanged(consumer, new)),
            _ => Ok(()),
        }
    }

    fn put(&self, key: String, cursor: &Cursor) {
        let cursor = match self.flaw {
            Flaw::NormalisesText => cursor.to_string().trim_start_matches('0').into(),
            _ => cursor.clone(),
        };
        self.cursors.lock().unwrap().insert(key, cursor);
    }
}

impl CursorStore for Broken {
    async fn get(&self, consumer: &str) -> Result<Option<Cursor>> {
        Ok(self.cursors.lock().unwrap().get(&self.key(consumer)).cloned())
    }

    async fn set(&self, consumer: &str, cursor: &Cursor) -> Result<()> {
        if self.flaw == Flaw::NeverFlushes {
            return Ok(());
        }
        if self.flaw == Flaw::RefusesText && cursor.as_i64().is_none() {
            return Err(Error::invalid("no text"));
        }
        let key = self.key(consumer);
        let stored = self.cursors.lock().unwrap().get(&key).cloned();
        if self.flaw == Flaw::Races {
            tokio::task::yield_now().await;
        }
        let checked = stored.map_or(Ok(()), |stored| self.check(consumer, cursor, &stored));
        if checked.is_ok() || self.flaw == Flaw::RefusesButMoves {
            self.put(key, cursor);
        }
        checked
    }
}

async fn check(flaw: Flaw, case: &str) {
    check_with(flaw, CursorCapabilities::default(), case).await;
}

async fn check_with(flaw: Flaw, capabilities: CursorCapabilities, case: &str) {
    let factory = |_case| {
        let shared = Broken { cursors: Arc::default(), flaw };
        std::future::ready(Ok(move || {
            let store = match flaw {
                Flaw::Forgets => Broken { cursors: Arc::default(), flaw },
                _ => shared.clone(),
            };
            std::future::ready(Ok(store))
        }))
    };
    check_found(cursor_store(factory, capabilities), case).await;
}

#[tokio::test(start_paused = true)]
async fn cursors_that_move_backwards_are_found() {
    check(Flaw::MovesBackwards, "backwards is refused").await;
    check(Flaw::MovesBackwards, "concurrent writers").await;
    check(Flaw::RefusesButMoves, "backwards is refused").await;
    check(Flaw::ComparesText, "set and get").await;
    check(Flaw::ComparesFloats, "integers of any size").await;
    check(Flaw::Races, "concurrent writers").await;
    check(Flaw::NamesNothing, "backwards is refused").await;
    check(Flaw::UnchangedSucceeds, "unchanged is told apart").await;
    check(Flaw::UnchangedIsBackwards, "unchanged is told apart").await;
}

#[tokio::test(start_paused = true)]
async fn consumers_that_disturb_each_other_are_found() {
    check(Flaw::IgnoresCase, "names that differ in little").await;
    check(Flaw::TrimsNames, "names that differ in little").await;
    check(Flaw::CutsNames, "names are independent").await;
}

#[tokio::test(start_paused = true)]
async fn cursors_that_are_not_kept_are_found() {
    check(Flaw::Forgets, "visible from a second instance").await;
    check(Flaw::NeverFlushes, "flush").await;
    check(Flaw::NormalisesText, "text").await;
    check(Flaw::RefusesText, "text").await;
    check_with(Flaw::MovesBackwards, CursorCapabilities { text: false, ..CursorCapabilities::default() }, "text").await;
}
