//! Specs that do nothing but what is measured.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Result, ensure};
use prometheus::Registry;
use reflex_core::{Consumer, Cursor, CursorStore, Event, Metrics, Spec, StreamFunc, consumer_fn, run};

/// Metrics in a registry of their own.
pub(crate) fn metrics() -> Result<Metrics> {
    Ok(Metrics::register(&Registry::new())?)
}

/// A name that no consumer has had, so that it starts at the beginning.
pub(crate) fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("consumer-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A consumer that does nothing.
pub(crate) fn idle_consumer() -> impl Consumer + Clone + 'static {
    consumer_fn(fresh_name(), |_event: Event| async { Ok(()) })
}

/// Runs a spec up to the head, and sees to it that it got as far as this id.
pub(crate) async fn run_to_head<S, C, K>(stream: S, cursors: C, consumer: K, metrics: &Metrics, head: u64) -> Result<()>
where
    S: StreamFunc,
    C: CursorStore,
    K: Consumer,
{
    let name = consumer.name().to_owned();
    let cursors = Arc::new(cursors);
    let mut spec = Spec::new(stream, cursors.clone(), consumer).metrics(metrics).to_head();
    let Err(end) = run(&mut spec).await;
    if !end.is_head_reached() {
        return Err(end.into());
    }
    let cursor = cursors.get(&name).await?;
    ensure!(cursor == Some(Cursor::from(head as i64)), "`{name}` ended at {cursor:?} instead of {head}");
    Ok(())
}
