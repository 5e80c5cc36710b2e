//! Pages that are on their way while the table changes: what is proven meanwhile says nothing about them.

use reflex_core::StreamOptions;
use reflex_sql::EventsTable;
use reflex_testing::eventually;
use tokio::select;

use crate::{
    bench::{Bench, PATIENCE, Reader, on},
    database::Result,
    relay::{Relay, Server},
};

const ON_ITS_WAY: &str = "on its way";

on!(servers:
    an_id_that_is_committed_after_a_page_was_read_is_not_passed_over,
    what_is_committed_after_the_last_page_was_read_comes_after_it,
);

/// The page has the first event and the last. Everything up to the last is proven before it arrives.
async fn an_id_that_is_committed_after_a_page_was_read_is_not_passed_over<D: Server>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.add(ON_ITS_WAY).await?;
    let (mut late, mut dead) = (bench.session().await?, bench.session().await?);
    late.hold("late").await?;
    dead.hold("dead").await?;
    dead.run("rollback").await?;
    bench.add("last").await?;

    let (relay, table) = relayed(&bench).await?;
    let mut behind = Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?;
    let mut ahead = Reader::open(&table, StreamOptions::new().after(1), bench.metrics.clone()).await?;
    reads_a_page(&mut behind, &relay).await;
    late.run("commit").await?;
    // The dead id between them had to be proven.
    assert_eq!(ahead.names(2).await, ["late", "last"]);
    relay.release();
    assert_eq!(behind.names(3).await, [ON_ITS_WAY, "late", "last"]);
    Ok(())
}

/// The page ends with the only event that there was. The reader at the head has passed the next one before it arrives.
async fn what_is_committed_after_the_last_page_was_read_comes_after_it<D: Server>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.add(ON_ITS_WAY).await?;
    let (relay, table) = relayed(&bench).await?;
    let mut behind = Reader::open(&table, StreamOptions::new(), bench.metrics.clone()).await?;
    let mut ahead = Reader::open(&table, StreamOptions::new().after(1), bench.metrics.clone()).await?;
    reads_a_page(&mut behind, &relay).await;
    bench.add("next").await?;
    assert_eq!(ahead.names(1).await, ["next"]);
    eventually("a proof", PATIENCE, || async { bench.metrics.gap_proofs.get() > 0 }).await;
    relay.release();
    assert_eq!(behind.names(2).await, [ON_ITS_WAY, "next"]);
    Ok(())
}

/// The table, opened through a relay that holds the first page with the first event.
async fn relayed<D: Server>(bench: &Bench<D>) -> Result<(Relay<D>, EventsTable<D>)> {
    let relay = Relay::start(&bench.namespace.pool, ON_ITS_WAY).await?;
    let table = EventsTable::open(&relay.pool, bench.options.clone()).await?;
    Ok((relay, table))
}

async fn reads_a_page<D: Server>(stream: &mut Reader, relay: &Relay<D>) {
    select! {
        event = stream.next() => panic!("{event:?} arrived in a page that is held back"),
        () = relay.holds() => {}
    }
}
