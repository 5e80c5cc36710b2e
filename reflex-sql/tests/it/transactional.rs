//! Effects that are committed with the cursor.

use std::{
    future,
    sync::{Arc, Mutex},
};

use reflex_core::{
    BufferedCursors, Consumer, Cursor, CursorStore, Event, EventParts, HandlerError, NewEvent, Progress, Spec, run,
};
use reflex_sql::{CursorsTable, TransactionalCursors, TransactionalHandler, Tx};
use tokio::{select, sync::mpsc};

use crate::{
    bench::{Bench, on, with_causes},
    database::{Backend, Result},
};

on!(each:
    effects_and_cursor_are_committed_together,
    a_failed_handler_undoes_both,
    a_dropped_run_undoes_both,
    a_kept_guard_is_an_error_and_undoes_both,
    a_transaction_that_the_handler_ended_is_an_error,
    a_handler_can_be_a_type_in_a_spawned_run,
    a_batch_is_one_transaction,
    the_halves_of_a_batch_go_around_what_is_put_aside,
    a_redrive_leaves_the_cursor,
    skipped_events_move_the_cursor,
    a_late_set_of_what_a_transaction_stored_is_nothing,
    buffered_cursors_around_do_no_harm,
    a_run_begins_where_the_cursor_is_stored,
    the_store_must_be_the_one_that_made_the_consumer,
    events_that_the_handler_inserts_are_consumed,
    text_cursors_are_moved_too,
);

/// A table of events, and one of the effects that they had.
pub(super) struct Shop<D: Backend> {
    pub(super) bench: Bench<D>,
    pub(super) cursors: TransactionalCursors<D>,
}

impl<D: Backend> Shop<D> {
    pub(super) async fn with_events(count: usize) -> Result<Self> {
        let bench = Bench::new().await?;
        bench.execute("create table effects (event_id bigint not null)").await?;
        bench.append(count).await?;
        let cursors = another(&bench).await?;
        Ok(Self { bench, cursors })
    }

    /// As another process would have them.
    pub(super) async fn other_cursors(&self) -> Result<TransactionalCursors<D>> {
        another(&self.bench).await
    }

    pub(super) async fn effects(&self) -> Result<Vec<i64>> {
        D::numbers(&self.bench.namespace.pool, "select event_id from effects order by event_id").await
    }

    pub(super) async fn stored(&self) -> Result<Option<i64>> {
        let stored = CursorsTable::open(&self.bench.namespace.pool, "cursors").await?.get("shop").await?;
        Ok(stored.and_then(|cursor| cursor.as_i64()))
    }

    #[track_caller]
    pub(super) fn assert(
        &self,
        effects: impl IntoIterator<Item = i64>,
        stored: Option<i64>,
    ) -> impl Future<Output = Result<()>> {
        let effects: Vec<_> = effects.into_iter().collect();
        let caller = std::panic::Location::caller();
        async move {
            assert_eq!(self.effects().await?, effects, "effects at {caller}");
            assert_eq!(self.stored().await?, stored, "cursor at {caller}");
            Ok(())
        }
    }

    /// Runs to the head and returns the error that ended it.
    pub(super) async fn run(&self, consumer: impl Consumer) -> reflex_core::Error {
        let mut spec = Spec::new(self.bench.table.clone(), self.cursors.clone(), consumer).to_head();
        let Err(error) = run(&mut spec).await;
        error
    }

    pub(super) async fn run_to_head(&self) -> Result<()> {
        let error = self.run(writer(&self.cursors)).await;
        assert!(error.is_head_reached(), "{}", with_causes(&error));
        Ok(())
    }
}

async fn another<D: Backend>(bench: &Bench<D>) -> Result<TransactionalCursors<D>> {
    Ok(TransactionalCursors::new(CursorsTable::open(&bench.namespace.pool, "cursors").await?))
}

/// Writes that an event had its effect.
pub(super) async fn write<D: Backend>(tx: &mut Tx<D>, event: &Event) -> Result<()> {
    D::run(tx, &format!("insert into effects (event_id) values ({})", event.id())).await
}

/// The consumer that writes the effect of each event.
pub(super) fn writer<D: Backend>(cursors: &TransactionalCursors<D>) -> impl Consumer + 'static {
    cursors.consumer("shop", |mut tx, event: Event| async move { write(&mut tx, &event).await })
}

/// An event that no table holds.
pub(super) fn event(id: impl Into<Cursor>) -> Event {
    Event::from(EventParts {
        id: id.into(),
        event_type: 1.into(),
        foreign_id: "7",
        timestamp: chrono::DateTime::UNIX_EPOCH,
        metadata: &[],
        trace: &[],
    })
}

async fn effects_and_cursor_are_committed_together<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(3).await?;
    let outside = CursorsTable::open(&shop.bench.namespace.pool, "cursors").await?;
    let consumer = shop.cursors.consumer("shop", |mut tx, event: Event| {
        let outside = outside.clone();
        async move {
            write(&mut tx, &event).await?;
            let id = event.id().as_i64().expect("ids of tables are integers");
            assert_eq!(D::number(&mut tx, "select last_event_id from cursors").await?, id, "inside it has moved");
            let before = (id > 1).then(|| Cursor::from(id - 1));
            assert_eq!(outside.get("shop").await?, before, "outside it has not");
            Ok(())
        }
    });
    let error = shop.run(consumer).await;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.assert(1..=3, Some(3)).await
}

async fn a_failed_handler_undoes_both<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(3).await?;
    let consumer = shop.cursors.consumer("shop", |mut tx, event: Event| async move {
        write(&mut tx, &event).await?;
        if event.id() == &2.into() { Err(HandlerError::new("no")) } else { Ok(()) }
    });
    let error = shop.run(consumer).await;
    assert_eq!(error.event_id(), Some(&2.into()), "{}", with_causes(&error));
    shop.assert([1], Some(1)).await?;
    shop.run_to_head().await?;
    shop.assert(1..=3, Some(3)).await
}

async fn a_dropped_run_undoes_both<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    let (wrote, mut written) = mpsc::channel(1);
    let consumer = shop.cursors.consumer("shop", |mut tx, event: Event| {
        let wrote = wrote.clone();
        async move {
            write(&mut tx, &event).await?;
            wrote.send(()).await?;
            future::pending().await
        }
    });
    select! {
        error = shop.run(consumer) => panic!("{}", with_causes(&error)),
        written = written.recv() => written.expect("the handler sends"),
    }
    shop.assert([], None).await?;
    shop.run_to_head().await?;
    shop.assert(1..=2, Some(2)).await
}

async fn a_kept_guard_is_an_error_and_undoes_both<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    let kept = Arc::new(Mutex::new(None));
    let consumer = shop.cursors.consumer("shop", |mut tx: Tx<D>, event: Event| {
        let kept = kept.clone();
        async move {
            write(&mut tx, &event).await?;
            *kept.lock().expect("nobody panicked") = Some(tx);
            Ok(())
        }
    });
    let error = shop.run(consumer).await;
    assert!(with_causes(&error).contains("the handler kept its transaction"), "{}", with_causes(&error));
    drop(kept.lock().expect("nobody panicked").take());
    shop.run_to_head().await?;
    shop.assert(1..=2, Some(2)).await
}

/// It is noticed at the latest when no event comes.
async fn a_transaction_that_the_handler_ended_is_an_error<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    let consumer = shop.cursors.consumer("shop", |mut tx, event: Event| async move {
        write(&mut tx, &event).await?;
        D::run(&mut tx, if event.id() == &2.into() { "rollback" } else { "select 1" }).await
    });
    let error = shop.run(consumer).await;
    assert!(!error.is_head_reached() && !error.is_fenced(), "{}", with_causes(&error));
    assert!(with_causes(&error).contains("commit the transaction"), "{}", with_causes(&error));
    shop.assert([1], Some(1)).await?;
    shop.run_to_head().await?;
    shop.assert(1..=2, Some(2)).await
}

struct Writer;

impl<D: Backend> TransactionalHandler<D> for Writer {
    async fn handle(&mut self, tx: &mut Tx<D>, event: Event) -> Result<()> {
        write(tx, &event).await
    }
}

async fn a_handler_can_be_a_type_in_a_spawned_run<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    let consumer = shop.cursors.consumer_with("shop", Writer);
    let mut spec = Spec::new(shop.bench.table.clone(), shop.cursors.clone(), consumer).to_head();
    let error = tokio::spawn(async move { run(&mut spec).await }).await?.expect_err("runs end with an error");
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.assert(1..=2, Some(2)).await
}

/// Collects so many events, and what is left at the end.
struct Batches<K> {
    inner: K,
    len: usize,
    events: Vec<Event>,
}

impl<K: Consumer<Vec<Event>>> Batches<K> {
    fn of(len: usize, inner: K) -> Self {
        Self { inner, len, events: Vec::new() }
    }
}

impl<K: Consumer<Vec<Event>>> Consumer for Batches<K> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn consume(&mut self, event: Event) -> Result<Progress> {
        self.events.push(event);
        if self.events.len() < self.len { Ok(Progress::Pending) } else { self.drain().await }
    }

    async fn drain(&mut self) -> Result<Progress> {
        let batch = std::mem::take(&mut self.events);
        let Some(last) = batch.last().map(|last| last.id().clone()) else { return Ok(Progress::Pending) };
        match self.inner.consume(batch).await? {
            Progress::Done => Ok(Progress::UpTo(last)),
            progress => Ok(progress),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.inner.stop().await
    }
}

async fn a_batch_is_one_transaction<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(10).await?;
    let batch = |fails_at: i64| {
        shop.cursors.consumer("shop", move |mut tx, batch: Vec<Event>| async move {
            for event in &batch {
                write(&mut tx, event).await?;
                if event.id() == &fails_at.into() {
                    return Err(HandlerError::new("no"));
                }
            }
            Ok(())
        })
    };
    let error = shop.run(Batches::of(4, batch(7))).await;
    assert!(!error.is_head_reached(), "{}", with_causes(&error));
    shop.assert(1..=4, Some(4)).await?;
    let error = shop.run(Batches::of(4, batch(0))).await;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.assert(1..=10, Some(10)).await
}

/// What a pattern does that looks for the one event that spoils a batch.
async fn the_halves_of_a_batch_go_around_what_is_put_aside<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let mut consumer = shop.cursors.consumer("shop", |mut tx, batch: Vec<Event>| async move {
        for event in &batch {
            write(&mut tx, event).await?;
        }
        if batch.iter().any(|event| event.id() == &3.into()) { Err(HandlerError::new("no")) } else { Ok(()) }
    });
    let batch = |ids: std::ops::RangeInclusive<i64>| ids.map(event).collect::<Vec<_>>();
    shop.cursors.get("shop").await?;
    assert!(consumer.consume(batch(1..=4)).await.is_err());
    assert_eq!(consumer.consume(batch(1..=2)).await?, Progress::Done);
    assert!(consumer.consume(batch(3..=3)).await.is_err());
    assert_eq!(consumer.consume(batch(4..=4)).await?, Progress::Done);
    shop.cursors.set("shop", &4.into()).await?;
    shop.assert([1, 2, 4], Some(4)).await?;
    // The spoilt one stands at the end of the next batch.
    assert_eq!(consumer.consume(batch(5..=6)).await?, Progress::Done);
    shop.cursors.set("shop", &8.into()).await?;
    assert_eq!(consumer.consume(batch(9..=9)).await?, Progress::Done);
    shop.assert([1, 2, 4, 5, 6, 9], Some(9)).await
}

async fn a_redrive_leaves_the_cursor<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let mut consumer = shop.cursors.consumer("shop", |mut tx, event: Event| async move {
        write(&mut tx, &event).await?;
        if event.id() == &1.into() { Err(HandlerError::new("no")) } else { Ok(()) }
    });
    let refused = consumer.redrive(event(2)).await.expect_err("it is still to come").to_string();
    assert!(refused.contains("the stream delivers it again"), "{refused}");
    shop.cursors.get("shop").await?;
    assert_eq!(consumer.consume(event(4)).await?, Progress::Done);
    assert_eq!(consumer.redrive(event(3)).await?, Progress::Done);
    assert!(consumer.redrive(event(5)).await.is_err(), "it is still to come");
    let mut of_another_process = shop
        .other_cursors()
        .await?
        .consumer("shop", |mut tx, event: Event| async move { write(&mut tx, &event).await });
    assert_eq!(of_another_process.redrive(event(2)).await?, Progress::Done);
    assert!(consumer.redrive(event(1)).await.is_err());
    assert_eq!(consumer.consume(event(5)).await?, Progress::Done);
    consumer.stop().await?;
    shop.assert(2..=5, Some(5)).await
}

/// Skips what is odd.
struct Even<K>(K);

impl<K: Consumer> Consumer for Even<K> {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn consume(&mut self, event: Event) -> Result<Progress> {
        match event.id().as_i64() {
            Some(id) if id % 2 == 0 => self.0.consume(event).await,
            _ => Ok(Progress::Skipped),
        }
    }
}

async fn skipped_events_move_the_cursor<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(5).await?;
    let error = shop.run(Even(writer(&shop.cursors))).await;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.assert([2, 4], Some(5)).await
}

async fn a_late_set_of_what_a_transaction_stored_is_nothing<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    let mut consumer = writer(&shop.cursors);
    shop.cursors.get("shop").await?;
    for id in [1, 2] {
        assert_eq!(consumer.consume(event(id)).await?, Progress::Done);
    }
    for id in [1, 2] {
        shop.cursors.set("shop", &id.into()).await?;
    }
    shop.cursors.set("shop", &3.into()).await?;
    let error = shop.cursors.set("shop", &3.into()).await.expect_err("no transaction stored it");
    assert!(error.is_cursor_unchanged(), "{error:?}");
    shop.assert([1, 2], Some(3)).await
}

async fn buffered_cursors_around_do_no_harm<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(5).await?;
    let cursors = BufferedCursors::new(shop.cursors.clone());
    let consumer = Even(writer(&shop.cursors));
    let mut spec = Spec::new(shop.bench.table.clone(), cursors, consumer).to_head();
    for _ in 0..2 {
        let Err(error) = run(&mut spec).await;
        assert!(error.is_head_reached(), "{}", with_causes(&error));
        shop.assert([2, 4], Some(5)).await?;
    }
    Ok(())
}

async fn a_run_begins_where_the_cursor_is_stored<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(2).await?;
    shop.run_to_head().await?;
    // Another process takes over for a while.
    let elsewhere = shop.other_cursors().await?;
    shop.bench.append(2).await?;
    let mut spec = Spec::new(shop.bench.table.clone(), elsewhere.clone(), writer(&elsewhere)).to_head();
    let Err(error) = run(&mut spec).await;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.bench.append(2).await?;
    shop.run_to_head().await?;
    shop.assert(1..=6, Some(6)).await
}

async fn the_store_must_be_the_one_that_made_the_consumer<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(1).await?;
    let elsewhere = shop.other_cursors().await?;
    let error = shop.run(writer(&elsewhere)).await;
    assert!(error.is_invalid() && error.to_string().contains("TransactionalCursors"), "{}", with_causes(&error));
    shop.assert([], None).await
}

/// In the transaction in which it consumes, and in batches that hold back the cursor until they are full.
async fn events_that_the_handler_inserts_are_consumed<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(6).await?;
    let table = shop.bench.table.clone();
    let consumer = shop.cursors.consumer("shop", |mut tx, batch: Vec<Event>| {
        let table = table.clone();
        async move {
            for event in &batch {
                write(&mut tx, event).await?;
            }
            let children = batch.iter().filter(|event| event.event_type() == 1.into());
            let children: Vec<_> = children.map(|event| NewEvent::new(event.foreign_id(), 2)).collect();
            let notify = table.insert_all(&mut tx, children).await?;
            tx.on_commit(notify);
            Ok(())
        }
    });
    let error = shop.run(Batches::of(4, consumer)).await;
    assert!(error.is_head_reached(), "{}", with_causes(&error));
    shop.run_to_head().await?;
    let ids = D::numbers(&shop.bench.namespace.pool, "select id from events order by id").await?;
    assert_eq!(ids.len(), 12);
    shop.assert(ids.iter().copied(), ids.last().copied()).await
}

async fn text_cursors_are_moved_too<D: Backend>() -> Result<()> {
    let shop = Shop::<D>::with_events(0).await?;
    shop.bench.execute("drop table cursors").await?;
    let table = "create table cursors (id varchar(255) primary key, last_event_id varchar(255) not null, updated_at ";
    let timestamp = if D::DIALECT == reflex_sql::DialectName::Postgres { "timestamptz" } else { "datetime" };
    shop.bench.execute(&format!("{table}{timestamp})")).await?;
    let cursors = shop.other_cursors().await?;
    let mut consumer = cursors.consumer("shop", |mut tx, _: Event| async move {
        D::run(&mut tx, "insert into effects (event_id) values (7)").await
    });
    assert_eq!(cursors.get("shop").await?, None);
    for id in ["b-1", "a-2", "17"] {
        assert_eq!(consumer.consume(event(id)).await?, Progress::Done);
        cursors.set("shop", &id.into()).await?;
        let error = consumer.consume(event(id)).await.expect_err("it is consumed already");
        assert!(error.is_fenced(), "{error:?}");
    }
    assert_eq!(shop.effects().await?, [7, 7, 7]);
    assert_eq!(shop.other_cursors().await?.get("shop").await?, Some(17.into()));
    Ok(())
}
