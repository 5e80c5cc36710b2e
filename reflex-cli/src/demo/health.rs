//! Whether everything runs, for `/health`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::consumers::NAMES;
use crate::exit::chain;

/// Where consumers and the import note how they are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Mutex<Health>>);

/// What `/health` answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Health {
    /// Whether every consumer runs and the last import worked.
    pub(crate) healthy: bool,
    consumers: BTreeMap<&'static str, ConsumerHealth>,
    import: ImportHealth,
}

#[derive(Clone, Debug, Default, Serialize)]
struct ConsumerHealth {
    running: bool,
    failures: u64,
    last_error: Option<Failure>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct ImportHealth {
    ok: bool,
    last_error: Option<Failure>,
}

#[derive(Clone, Debug, Serialize)]
struct Failure {
    at: String,
    message: String,
}

impl Failure {
    fn new(message: String, at: DateTime<Utc>) -> Self {
        Self { at: at.to_rfc3339_opts(SecondsFormat::Millis, true), message }
    }
}

impl Board {
    /// Nothing runs yet.
    pub(crate) fn new() -> Self {
        let consumers = NAMES.iter().map(|name| (*name, ConsumerHealth::default())).collect();
        let import = ImportHealth { ok: true, last_error: None };
        Self(Arc::new(Mutex::new(Health { healthy: false, consumers, import })))
    }

    /// Notes that a consumer runs.
    pub(crate) fn started(&self, consumer: &str) {
        self.change(consumer, |consumer| consumer.running = true);
    }

    /// Notes that a consumer does not run any more, and why if it failed.
    pub(crate) fn ended(&self, consumer: &str, error: Option<&(dyn std::error::Error + 'static)>) {
        self.change(consumer, |consumer| {
            consumer.running = false;
            if let Some(error) = error {
                let causes = std::iter::successors(Some(error), |error| error.source());
                consumer.failures += 1;
                consumer.last_error = Some(Failure::new(chain(causes), Utc::now()));
            }
        });
    }

    /// Notes how the last import went.
    pub(crate) fn imported(&self, error: Option<anyhow::Error>) {
        let mut health = self.health();
        health.import.ok = error.is_none();
        if let Some(error) = error {
            health.import.last_error = Some(Failure::new(chain(error.chain()), Utc::now()));
        }
    }

    /// How everything is at the moment.
    pub(crate) fn look(&self) -> Health {
        let mut health = self.health().clone();
        health.healthy = health.import.ok && health.consumers.values().all(|consumer| consumer.running);
        health
    }

    fn change(&self, consumer: &str, change: impl FnOnce(&mut ConsumerHealth)) {
        if let Some(consumer) = self.health().consumers.get_mut(consumer) {
            change(consumer);
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_to_run() {
        let board = Board::new();
        for name in NAMES {
            assert!(!board.look().healthy);
            board.started(name);
        }
        assert!(board.look().healthy);
        board.imported(Some(anyhow::anyhow!("no git")));
        assert!(!board.look().healthy);
        board.imported(None);
        assert!(board.look().healthy);
        let error = std::io::Error::other("disk full");
        board.ended(NAMES[1], Some(&error));
        let health = serde_json::to_value(board.look()).unwrap();
        assert_eq!(health["healthy"], false);
        assert_eq!(health["consumers"][NAMES[1]]["last_error"]["message"], "disk full");
        assert_eq!(health["import"]["last_error"]["message"], "no git");
    }
}
