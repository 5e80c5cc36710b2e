//! What an operator sees of a table.

use prometheus::Registry;
use reflex_core::{CursorStore, Metrics};
use reflex_sql::{CursorsTable, CursorsTableOptions};
use sqlx::{Postgres, Sqlite};

use crate::{
    bench::Bench,
    database::{Result, with_tables},
};

/// luno/reflex's, under its names.
const NAMES: [&str; 10] = [
    "reflex_events_table_poll_total",
    "reflex_events_table_blocking_gap",
    "reflex_events_table_gap_detected_total",
    "reflex_events_table_gap_filled_total",
    "reflex_events_table_gap_listening",
    "reflex_events_table_rcache_hits_total",
    "reflex_events_table_rcache_misses_total",
    "reflex_events_table_deserialization_duration_seconds",
    "reflex_events_table_loading_duration_seconds",
    "reflex_events_table_events_deserialized_total",
];

/// The tables that a metric is there for.
fn tables(registry: &Registry, name: &str) -> Vec<String> {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let labels = family.iter().flat_map(|family| family.get_metric()).flat_map(|metric| metric.get_label());
    labels.filter(|label| label.name() == "table").map(|label| label.value().to_owned()).collect()
}

/// Ours alone.
const WAKE_UP_NAMES: [&str; 4] = [
    "reflex_events_table_wake_ups_received_total",
    "reflex_events_table_wake_ups_sent_total",
    "reflex_events_table_wake_ups_failed_total",
    "reflex_events_table_wake_ups_connected",
];

#[tokio::test]
async fn every_metric_of_a_table_is_there_from_the_start() -> Result<()> {
    let bench = Bench::<Sqlite>::new().await?;
    for name in NAMES.into_iter().chain(WAKE_UP_NAMES) {
        assert_eq!(tables(&bench.registry, name), ["events"], "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn reading_moves_the_metrics() -> Result<()> {
    let bench = Bench::<Sqlite>::new().await?;
    bench.append(10).await?;
    let mut reader = bench.follow().await?;
    reader.take(10).await;
    bench.append(5).await?;
    reader.take(5).await;
    let metrics = &bench.metrics;
    assert!(metrics.polls.get() > 0 && metrics.loading_seconds.get_sample_count() > 0);
    assert!(metrics.cache_misses.get() > 0, "the first ten are before the ring");
    assert!(metrics.cache_hits.get() > 0, "the others are in it");
    assert_eq!(metrics.events_deserialized.get(), 15);
    assert!(metrics.deserialization_seconds.get() > 0.0);
    assert_eq!(metrics.gap_listening.get(), 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs Postgres: cargo xtask test"]
async fn gaps_move_the_metrics() -> Result<()> {
    let bench = Bench::<Postgres>::new().await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    bench.add("a").await?;
    reader.waits().await;
    let metrics = &bench.metrics;
    assert_eq!((metrics.blocking_gap.get(), metrics.gaps_detected.get()), (1, 1));
    assert!(metrics.blocked_seconds.get() > 0.0);
    writer.run("rollback").await?;
    reader.next().await;
    reader.waits().await;
    assert_eq!((metrics.blocking_gap.get(), metrics.gaps_skipped.get(), metrics.gaps_filled.get()), (0, 1, 0));
    assert!(metrics.gap_proofs.get() > 0 && metrics.blocked_seconds.get() == 0.0);
    Ok(())
}

#[tokio::test]
async fn cursor_writes_are_counted() -> Result<()> {
    let namespace = with_tables::<Sqlite>().await?;
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let options = CursorsTableOptions::new("cursors").metrics(&metrics);
    let cursors = CursorsTable::open(&namespace.pool, options).await?;
    cursors.set("a", &1.into()).await?;
    cursors.set("a", &2.into()).await?;
    assert_eq!(metrics.cursor_sets("cursors").get(), 2);
    assert_eq!(tables(&registry, "reflex_cursors_table_set_total"), ["cursors"]);
    Ok(())
}
