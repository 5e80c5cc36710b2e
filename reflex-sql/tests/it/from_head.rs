//! Streams that start at the head: nothing that is committed later is missed, and history is not replayed.

use std::collections::HashSet;

use reflex_core::StreamOptions;
use tokio::{select, task::JoinSet, time::sleep};

use crate::{
    bench::{Bench, Session, insert, on},
    database::{Backend, Result},
};

on!(each:
    an_empty_table_starts_at_its_first_event,
    history_is_not_replayed,
);

on!(servers:
    an_id_that_is_held_for_long_is_not_missed,
    dead_ids_are_no_reason_to_start_early,
    nothing_committed_after_the_call_is_missed,
);

fn head() -> StreamOptions {
    StreamOptions::new().from_head()
}

async fn an_empty_table_starts_at_its_first_event<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut reader = bench.read(head()).await?;
    assert_eq!(reader.position, Some(0.into()));
    bench.append(2).await?;
    assert_eq!(reader.names(2).await, ["event-1", "event-2"]);
    Ok(())
}

async fn history_is_not_replayed<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    bench.append(10).await?;
    bench.execute("delete from events where id in (2, 3, 7)").await?;
    let mut reader = bench.read(head()).await?;
    assert_eq!(reader.position, Some(10.into()));
    bench.add("new").await?;
    assert_eq!(reader.names(1).await, ["new"]);
    Ok(())
}

async fn an_id_that_is_held_for_long_is_not_missed<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut slow = bench.session().await?;
    bench.append(3).await?;
    slow.hold("slow").await?;
    bench.append(2).await?;
    let mut reader = bench.read(head()).await?;
    assert_eq!(reader.position, Some(3.into()));
    reader.waits().await;
    slow.run("commit").await?;
    assert_eq!(reader.names(3).await, ["slow", "event-1", "event-2"]);
    Ok(())
}

/// A reader that runs has proven them dead; another writer that is open meanwhile changes nothing about that.
async fn dead_ids_are_no_reason_to_start_early<D: Backend>() -> Result<()> {
    let bench = Bench::<D>::new().await?;
    let mut writer = bench.session().await?;
    for _ in 0..20 {
        writer.hold("dead").await?;
        writer.run("rollback").await?;
        bench.add("old").await?;
    }
    let last = writer.number("select max(id) from events").await?;
    let mut running = bench.read(head()).await?;
    assert_eq!(running.position, Some(last.into()));
    running.waits().await;
    writer.hold("slow").await?;
    let mut reader = bench.read(head()).await?;
    assert_eq!(reader.position, Some(last.into()));
    bench.add("new").await?;
    reader.waits().await;
    writer.run("rollback").await?;
    assert_eq!(reader.names(1).await, ["new"]);
    Ok(())
}

/// Writers never pause while streams open; what was not committed when `open` returned must come.
async fn nothing_committed_after_the_call_is_missed<D: Backend>() -> Result<()>
where
    Session<D>: Busy,
{
    let bench = Bench::<D>::new().await?;
    let mut writers = JoinSet::new();
    let (done, until) = tokio::sync::watch::channel(false);
    for writer in 0..4 {
        writers.spawn(bench.session().await?.keep_writing(writer, until.clone()));
    }
    let mut readers = Vec::new();
    for _ in 0..5 {
        let reader = bench.read(head()).await?;
        let committed: HashSet<i64> = ids(&bench).await?;
        readers.push((reader, committed));
        sleep(std::time::Duration::from_millis(20)).await;
    }
    done.send(true)?;
    while let Some(ended) = writers.join_next().await {
        ended??;
    }
    bench.add("last").await?;
    let all = ids(&bench).await?;
    for (mut reader, committed) in readers {
        let mut missed: HashSet<_> = all.difference(&committed).copied().collect();
        while !missed.is_empty() {
            let next = select! {
                ids = reader.ids(1) => ids[0],
                () = sleep(crate::bench::PATIENCE) => panic!("missed {missed:?}"),
            };
            missed.remove(&next);
            let last = all.iter().max().copied();
            assert!(Some(next) != last || missed.is_empty(), "missed {missed:?}");
        }
    }
    Ok(())
}

/// The ids that are committed at this moment.
async fn ids<D: Backend>(bench: &Bench<D>) -> Result<HashSet<i64>> {
    D::numbers(&bench.namespace.pool, "select id from events").await.map(HashSet::from_iter)
}

/// Writing in a task of its own, which needs to know the database.
trait Busy {
    fn keep_writing(
        self,
        number: u64,
        until: tokio::sync::watch::Receiver<bool>,
    ) -> impl Future<Output = Result<()>> + Send + 'static;
}

macro_rules! busy {
    ($($database:ty),*) => {$(
        impl Busy for Session<$database> {
            async fn keep_writing(mut self, number: u64, until: tokio::sync::watch::Receiver<bool>) -> Result<()> {
                let mut turn = number;
                while !*until.borrow() {
                    turn += 1;
                    self.hold("a").await?;
                    // Others commit above this id meanwhile.
                    for _ in 0..turn % 5 {
                        tokio::task::yield_now().await;
                    }
                    self.run(&insert("b")).await?;
                    self.run(if turn % 4 == 0 { "rollback" } else { "commit" }).await?;
                }
                Ok(())
            }
        }
    )*};
}

busy!(sqlx::Postgres, sqlx::MySql);
