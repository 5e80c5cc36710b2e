//! Whether everything runs, for `/health`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use reflex_core::{ConsumerHealth, Health};
use serde::Serialize;

use super::consumers::NAMES;
use crate::exit::chain;

/// Where consumers and the import tell how they are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    /// The consumers, once they follow the stream for good.
    pub(crate) consumers: Health,
    import: Arc<Mutex<ImportHealth>>,
}

/// What `/health` answers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DemoHealth {
    /// Whether every consumer is healthy and the last import worked.
    pub(crate) healthy: bool,
    consumers: Vec<ConsumerHealth>,
    import: ImportHealth,
}

#[derive(Clone, Debug, Serialize)]
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
        let import = Arc::new(Mutex::new(ImportHealth { ok: true, last_error: None }));
        Self { consumers: Health::new(), import }
    }

    /// Notes how the last import went.
    pub(crate) fn imported(&self, error: Option<anyhow::Error>) {
        let mut import = self.import();
        import.ok = error.is_none();
        if let Some(error) = error {
            import.last_error = Some(Failure::new(chain(error.chain()), Utc::now()));
        }
    }

    /// How everything is at the moment.
    pub(crate) fn look(&self) -> DemoHealth {
        let (report, import) = (self.consumers.report(), self.import().clone());
        let healthy = import.ok && report.healthy && report.consumers.len() == NAMES.len();
        DemoHealth { healthy, consumers: report.consumers, import }
    }

    fn import(&self) -> MutexGuard<'_, ImportHealth> {
        self.import.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, future::join_all};
    use reflex_core::{Event, MemoryCursors, MemoryEvents, Metrics, Spec, consumer_fn, run};

    use super::*;

    #[tokio::test]
    async fn everything_has_to_run() {
        let board = Board::new();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let mut specs = NAMES.map(|name| {
            let consumer = consumer_fn(name, |_event: Event| async { Ok(()) });
            Spec::new(MemoryEvents::new(), MemoryCursors::new(), consumer).metrics(&metrics)
        });
        assert!(!board.look().healthy, "there is no consumer yet");
        specs = specs.map(|spec| spec.health(&board.consumers));
        assert!(!board.look().healthy);
        let mut runs = pin!(join_all(specs.iter_mut().map(|spec| Box::pin(run(spec)))));
        assert!(runs.as_mut().now_or_never().is_none());
        assert!(board.look().healthy);
        board.imported(Some(anyhow::anyhow!("no git")));
        assert!(!board.look().healthy);
        board.imported(None);
        let health = board.look();
        assert!(health.healthy, "{health:?}");
        assert_eq!(serde_json::to_value(health).unwrap()["import"]["last_error"]["message"], "no git");
    }
}
