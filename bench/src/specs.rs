//! Specs that do nothing but what is measured.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use prometheus::Registry;
use reflex_core::{
    Consumer, Cursor, CursorStore, Event, HandlerError, MemoryCursors, Metrics, Spec, StreamFunc, consumer_fn, run,
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::latency::now;

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
    idle_named(fresh_name())
}

pub(crate) fn idle_named(name: String) -> impl Consumer + Clone + 'static {
    consumer_fn(name, |_event: Event| async { Ok(()) })
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
    let Err(end) = Box::pin(run(&mut spec)).await;
    if !end.is_head_reached() {
        return Err(end.into());
    }
    let cursor = cursors.get(&name).await?;
    ensure!(cursor == Some(Cursor::from(head as i64)), "`{name}` ended at {cursor:?} instead of {head}");
    Ok(())
}

/// Does it in a task of its own, as a service would, which ends with the future.
pub(crate) async fn in_task<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    task.join_next().await.context("there is a task")??
}

/// Follows a table after this id, and tells when each event arrived.
pub(crate) async fn tell_arrivals(events: impl StreamFunc, after: i64, arrived: mpsc::Sender<u64>) -> Result<()> {
    follow(events, after, move |_event| {
        let (arrived, at) = (arrived.clone(), now());
        async move { Ok(arrived.send(at).await?) }
    })
    .await
}

/// Follows a table after this id, until it fails.
pub(crate) async fn follow<F, Fut>(events: impl StreamFunc, after: i64, handler: F) -> Result<()>
where
    F: FnMut(Event) -> Fut + Send,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    let (name, cursors) = (fresh_name(), MemoryCursors::new());
    if after > 0 {
        cursors.set(&name, &after.into()).await?;
    }
    let mut spec = Spec::new(events, cursors, consumer_fn(name, handler)).metrics(&metrics()?);
    let Err(end) = Box::pin(run(&mut spec)).await;
    Err(end.into())
}
