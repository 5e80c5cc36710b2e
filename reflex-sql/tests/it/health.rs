//! What a stream tells about itself while a consumer follows it.

use std::{future::ready, pin::pin};

use reflex_core::{
    ConsumerHealth, ConsumerState, Event, Health, MemoryCursors, Metrics, Opened, Spec, StreamOptions, consumer_fn, run,
};
use reflex_testing::eventually;
use tokio::select;

use crate::{
    bench::{Bench, PATIENCE, insert, on},
    database::{Backend, Result},
};

on!(each:
    at_the_head_a_consumer_waits_for_events,
    placeholders_and_dead_ids_at_the_end_leave_nobody_behind,
    a_stream_that_is_not_read_is_behind,
);

on!(servers:
    an_open_transaction_blocks_and_is_named,
);

/// Runs a consumer until it is seen as `state`, and with this cursor.
async fn seen_as<D: Backend>(bench: &Bench<D>, state: ConsumerState, cursor: i64) -> Result<ConsumerHealth> {
    let health = Health::new();
    let consumer = consumer_fn("billing", |_event: Event| ready(Ok(())));
    let metrics = Metrics::register(&prometheus::Registry::new())?;
    let mut spec = Spec::new(bench.table.clone(), MemoryCursors::new(), consumer).metrics(&metrics).health(&health);
    let look = || health.consumers().remove(0);
    let mut running = pin!(Box::pin(run(&mut spec)));
    let as_wanted = |seen: &ConsumerHealth| seen.state == state && seen.cursor == Some(cursor.into());
    let seen = eventually("the state", PATIENCE, || ready(as_wanted(&look())));
    select! {
        ended = running.as_mut() => panic!("it ended: {ended:?}"),
        () = seen => {}
    }
    Ok(look())
}

async fn at_the_head_a_consumer_waits_for_events<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(3).await?;
    let seen = seen_as(&bench, ConsumerState::WaitingForEvents, 3).await?;
    assert_eq!((seen.behind, seen.blocked), (Some(0), None));
    Ok(())
}

/// They are never delivered, so what was delivered last says nothing about the head.
async fn placeholders_and_dead_ids_at_the_end_leave_nobody_behind<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut writer = bench.session().await?;
    bench.add("a").await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.execute("insert into events (foreign_id, type) values ('0', 0)").await?;
    let seen = seen_as(&bench, ConsumerState::WaitingForEvents, 1).await?;
    assert_eq!(seen.behind, Some(0));
    Ok(())
}

async fn a_stream_that_is_not_read_is_behind<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(3).await?;
    let Opened { events, status, .. } = bench.table.open_stream(StreamOptions::new()).await?;
    let status = status.expect("a table tells where its streams are");
    assert_eq!(status().behind, Some(3));
    bench.append(2).await?;
    eventually("the reader sees them", PATIENCE, || ready(status().behind == Some(5))).await;
    drop(events);
    Ok(())
}

async fn an_open_transaction_blocks_and_is_named<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut writer = bench.session().await?;
    bench.add("a").await?;
    writer.hold("later").await?;
    bench.execute(&insert("b")).await?;
    let seen = seen_as(&bench, ConsumerState::Blocked, 1).await?;
    assert_eq!((seen.behind, seen.blocked.map(|blocked| blocked.after)), (Some(2), Some(1.into())));
    assert_eq!(bench.table.blocking(Some(&1.into())).await?.len(), 1);
    assert_eq!(bench.table.blocking(None).await?, [""; 0], "event 1 is there");
    writer.run("commit").await?;
    assert_eq!(bench.table.blocking(Some(&1.into())).await?, [""; 0]);
    seen_as(&bench, ConsumerState::WaitingForEvents, 3).await?;
    Ok(())
}
