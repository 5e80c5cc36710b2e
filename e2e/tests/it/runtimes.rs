//! The same journey on a runtime of one thread and on one of several.
//!
//! On one thread it shows as well that nothing blocks that thread: the proxy that carries every byte to the server and back
//! runs on it, so whoever waited for an answer without giving the thread back would wait for ever. On SQLite the same holds for
//! a transaction that is open while its handler yields.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use reflex_core::{
    BufferedCursors, Consumer, CursorStore, Error, Event, HandlerError, NewEvent, Spec, consumer_fn, run_until,
};
use reflex_e2e::Backend;
use reflex_sql::{
    CursorsTable, CursorsTableOptions, ErrorsTable, ErrorsTableOptions, EventsTable, EventsTableOptions,
    TransactionalCursors, Tx,
};
use reflex_testing::eventually;
use rpatterns::{Key, batch, dead_letter, keyed_lanes};
use sqlx::Pool;
use tokio::{
    runtime::Builder,
    sync::watch,
    task::{JoinSet, yield_now},
};

use crate::support::{Namespace, PATIENCE, metrics, run};

/// Makes a test of the journey for each kind of runtime.
macro_rules! on_both {
    ($name:ident, $namespace:expr $(, #[$ignore:meta])?) => {
        mod $name {
            use super::*;

            #[test]
            $(#[$ignore])?
            fn one_thread() {
                on(Builder::new_current_thread(), || async { journey($namespace("one_thread").await).await });
            }

            #[test]
            $(#[$ignore])?
            fn several_threads() {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(3);
                on(builder, || async { journey($namespace("several_threads").await).await });
            }
        }
    };
}

on_both!(sqlite, |_| Namespace::sqlite());
on_both!(postgres, Namespace::postgres, #[ignore = "needs Postgres: cargo xtask test"]);
on_both!(mariadb, Namespace::mariadb, #[ignore = "needs MariaDB: cargo xtask test"]);

const EVENTS: usize = 200;
const AT_ONCE: usize = 20;

/// Waits for a journey on a thread of its own: nothing on a blocked runtime could tell that it is late.
fn on<F: Future<Output = ()>>(mut builder: Builder, journey: impl FnOnce() -> F + Send + 'static) {
    let (done, outcome) = mpsc::channel();
    let traveller = thread::spawn(move || {
        builder.enable_all().build().unwrap().block_on(journey());
        done.send(()).unwrap();
    });
    match outcome.recv_timeout(PATIENCE * 3) {
        Ok(()) => traveller.join().unwrap(),
        Err(RecvTimeoutError::Disconnected) => resume_unwind(traveller.join().expect_err("it sent nothing")),
        Err(RecvTimeoutError::Timeout) => panic!("the journey does not come to its end: something blocks its thread"),
    }
}

/// Consumers of every kind follow one table while events come.
async fn journey<D: Backend>(namespace: Namespace<D>) {
    let (pool, _proxy) = namespace.far_away(Duration::ZERO).await;
    run(&pool, "create table effects (event_id bigint primary key)").await;
    let shop = Shop::open(&pool).await;
    let mut runs = JoinSet::new();
    shop.spawn_all(&mut runs);

    for _ in 0..EVENTS / AT_ONCE {
        let mut tx = pool.begin_with(D::BEGIN).await.unwrap();
        let events = (0..AT_ONCE).map(|number| NewEvent::new(format!("key-{}", number % 5), 1));
        let notify = shop.table.insert_all(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
        notify.send();
        yield_now().await;
    }
    let everything = || async {
        let counted = shop.counters.iter().all(|counter| counter.load(Ordering::SeqCst) == EVENTS);
        counted && D::number(&pool, "select count(*) from effects").await.unwrap() == EVENTS as i64
    };
    eventually("every consumer to see every event", PATIENCE * 2, everything).await;
    shop.stop.send(true).unwrap();
    let ends = runs.join_all().await;
    assert!(ends.iter().all(Error::is_stopped), "{ends:?}");
    let at_the_end = format!("select count(*) from cursors where last_event_id = {EVENTS}");
    assert_eq!(D::number(&pool, &at_the_end).await.unwrap(), ends.len() as i64);
    let letters = D::number(&pool, "select count(*) from consumer_errors").await.unwrap();
    assert_eq!(letters, EVENTS as i64 / 10);
    drop(shop);
    pool.close().await;
    namespace.remove().await;
}

struct Shop<D: Backend> {
    table: EventsTable<D>,
    cursors: CursorsTable<D>,
    errors: ErrorsTable<D>,
    /// How many events each consumer has seen but the transactional one.
    counters: [Arc<AtomicUsize>; 4],
    stop: watch::Sender<bool>,
}

impl<D: Backend> Shop<D> {
    async fn open(pool: &Pool<D>) -> Self {
        let options = EventsTableOptions::new("events").poll_interval(Duration::from_millis(50)).metrics(&metrics());
        let cursors = CursorsTableOptions::new("cursors").metrics(&metrics());
        let errors = ErrorsTableOptions::new("consumer_errors").metrics(&metrics());
        Self {
            table: EventsTable::open(pool, options).await.unwrap(),
            cursors: CursorsTable::open(pool, cursors).await.unwrap(),
            errors: ErrorsTable::open(pool, errors).await.unwrap(),
            counters: Default::default(),
            stop: watch::Sender::new(false),
        }
    }

    fn spawn_all(&self, runs: &mut JoinSet<Error>) {
        let [plain, batches, lanes, letters] = &self.counters;
        self.spawn(runs, BufferedCursors::new(self.cursors.clone()), counting("plain", plain));
        let batches = batch(7, Duration::from_millis(20), counting_batches("batches", batches));
        self.spawn(runs, BufferedCursors::new(self.cursors.clone()), batches);
        let lanes = keyed_lanes(4, Key::by_foreign_id(), counting("lanes", lanes));
        self.spawn(runs, BufferedCursors::new(self.cursors.clone()), lanes);
        self.spawn(runs, self.cursors.clone(), dead_letter(self.errors.clone(), failing("letters", letters)));
        let cursors = TransactionalCursors::new(self.cursors.clone());
        let effects = cursors.consumer("effects", |mut tx: Tx<D>, event: Event| async move {
            yield_now().await;
            D::run_sql(&mut tx, format!("insert into effects values ({})", event.id())).await?;
            yield_now().await;
            Ok(())
        });
        self.spawn(runs, cursors, effects);
    }

    fn spawn<C, K>(&self, runs: &mut JoinSet<Error>, cursors: C, consumer: K)
    where
        C: CursorStore + 'static,
        K: Consumer + 'static,
    {
        let mut spec = Spec::new(self.table.clone(), cursors, consumer).metrics(&metrics());
        let mut stopped = self.stop.subscribe();
        runs.spawn(async move {
            let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
            let Err(end) = run_until(&mut spec, stop).await;
            end
        });
    }
}

fn counting(name: &str, counter: &Arc<AtomicUsize>) -> impl Consumer + Clone + use<> {
    let counter = counter.clone();
    consumer_fn(name.to_owned(), move |_event: Event| {
        counter.fetch_add(1, Ordering::SeqCst);
        async {
            yield_now().await;
            Ok(())
        }
    })
}

fn counting_batches(name: &str, counter: &Arc<AtomicUsize>) -> impl Consumer<Vec<Event>> + use<> {
    let counter = counter.clone();
    consumer_fn(name.to_owned(), move |batch: Vec<Event>| {
        counter.fetch_add(batch.len(), Ordering::SeqCst);
        async { Ok(()) }
    })
}

/// Fails for each tenth event.
fn failing(name: &str, counter: &Arc<AtomicUsize>) -> impl Consumer + use<> {
    let counter = counter.clone();
    consumer_fn(name.to_owned(), move |_event: Event| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move { if number.is_multiple_of(10) { Err(HandlerError::new("a tenth")) } else { Ok(()) } }
    })
}
