//! Ids that are missing: dead for good, or about to be committed.

use reflex_core::StreamOptions;

use crate::{
    bench::{Bench, insert, on},
    database::{Backend, Result},
};

on!(each:
    rollbacks_are_passed_over,
    a_rolled_back_savepoint_is_passed_over,
    a_bulk_rollback_is_passed_over,
    dead_ids_before_the_first_event_are_passed_over,
    events_trimmed_under_a_slow_stream_do_not_stop_it,
    ids_above_2_pow_53_are_exact,
);

on!(servers:
    an_open_transaction_holds_back_what_came_after_it,
    the_first_id_of_the_table_may_commit_last,
    a_disconnected_writer_is_passed_over,
    a_transaction_that_only_reads_delays_nothing,
    a_gap_behind_the_shared_reader_is_waited_for,
);

async fn rollbacks_are_passed_over<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    bench.add("a").await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.add("b").await?;
    assert_eq!(reader.names(2).await, ["a", "b"]);
    writer.hold("dead too").await?;
    writer.run("rollback").await?;
    bench.add("c").await?;
    assert_eq!(reader.names(1).await, ["c"]);
    Ok(())
}

async fn a_rolled_back_savepoint_is_passed_over<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.hold("a").await?;
    writer.run("savepoint s").await?;
    writer.run(&insert("dead")).await?;
    writer.run("rollback to savepoint s").await?;
    writer.run(&insert("b")).await?;
    writer.run("commit").await?;
    assert_eq!(reader.names(2).await, ["a", "b"]);
    reader.waits().await;
    Ok(())
}

async fn a_bulk_rollback_is_passed_over<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    let rows = vec!["('dead', 1)"; 1_000].join(", ");
    writer.run(D::BEGIN).await?;
    writer.run(&format!("insert into events (foreign_id, type) values {rows}")).await?;
    writer.run("rollback").await?;
    bench.add("a").await?;
    assert_eq!(reader.names(1).await, ["a"]);
    Ok(())
}

async fn dead_ids_before_the_first_event_are_passed_over<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.append(3).await?;
    bench.execute("delete from events where foreign_id = 'event-1'").await?;
    assert_eq!(bench.follow().await?.names(2).await, ["event-2", "event-3"]);
    Ok(())
}

/// The shared reader passed over these rows while they were there, so that nothing proved their ids dead.
async fn events_trimmed_under_a_slow_stream_do_not_stop_it<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::with(crate::bench::options().ring_events(5)).await?;
    let mut slow = bench.follow().await?;
    let mut quick = bench.follow().await?;
    bench.append(2).await?;
    assert_eq!(slow.names(1).await, ["event-1"]);
    bench.append(100).await?;
    quick.take(102).await;
    // What it has in memory would be delivered to the slow stream as well.
    drop(quick);
    bench.execute("delete from events where id > 2 and id < 60").await?;
    let rest = bench.follow().await?.take(45).await;
    assert_eq!(slow.take(44).await, rest[1..]);
    Ok(())
}

async fn ids_above_2_pow_53_are_exact<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut session = bench.session().await?;
    let first = (1_i64 << 53) + 1;
    session.run(&D::next_id_is(first)).await?;
    bench.append(3).await?;
    assert_eq!(bench.follow().await?.ids(3).await, [first, first + 1, first + 2]);
    let mut after = bench.read(StreamOptions::new().after(first)).await?;
    assert_eq!(after.ids(2).await, [first + 1, first + 2]);
    Ok(())
}

async fn an_open_transaction_holds_back_what_came_after_it<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    let (mut slow, mut slower) = (bench.session().await?, bench.session().await?);
    bench.add("first").await?;
    slow.hold("slow").await?;
    slower.hold("slower").await?;
    bench.add("quick").await?;
    assert_eq!(reader.names(1).await, ["first"]);
    reader.waits().await;
    assert_eq!(bench.metrics.blocking_gap.get(), 1);
    slow.run("commit").await?;
    assert_eq!(reader.names(1).await, ["slow"]);
    reader.waits().await;
    slower.run("commit").await?;
    assert_eq!(reader.names(2).await, ["slower", "quick"]);
    Ok(())
}

async fn the_first_id_of_the_table_may_commit_last<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut slow = bench.session().await?;
    slow.hold("first").await?;
    bench.add("second").await?;
    let mut reader = bench.follow().await?;
    reader.waits().await;
    slow.run("commit").await?;
    assert_eq!(reader.names(2).await, ["first", "second"]);
    Ok(())
}

async fn a_disconnected_writer_is_passed_over<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.follow().await?;
    let mut writer = bench.session().await?;
    writer.hold("dead").await?;
    bench.add("a").await?;
    reader.waits().await;
    writer.disconnect();
    assert_eq!(reader.names(1).await, ["a"]);
    Ok(())
}

async fn a_transaction_that_only_reads_delays_nothing<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.execute("create table orders (id int primary key)").await?;
    let (mut other, mut writer) = (bench.session().await?, bench.session().await?);
    other.run("begin").await?;
    other.number("select count(*) from events").await?;
    other.run("insert into orders values (1)").await?;
    let mut reader = bench.follow().await?;
    writer.hold("dead").await?;
    writer.run("rollback").await?;
    bench.add("a").await?;
    assert_eq!(reader.names(1).await, ["a"]);
    Ok(())
}

/// The shared reader starts above the gap, so that a stream from the beginning meets it on its own.
async fn a_gap_behind_the_shared_reader_is_waited_for<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.add("first").await?;
    let mut slow = bench.session().await?;
    slow.hold("slow").await?;
    bench.append(5).await?;
    let mut head = bench.read(StreamOptions::new().after(7)).await?;
    let mut reader = bench.follow().await?;
    assert_eq!(reader.names(1).await, ["first"]);
    reader.waits().await;
    bench.add("last").await?;
    assert_eq!(head.names(1).await, ["last"]);
    slow.run("commit").await?;
    assert_eq!(reader.names(2).await, ["slow", "event-1"]);
    assert_eq!(reader.take(5).await.len(), 5);
    Ok(())
}
