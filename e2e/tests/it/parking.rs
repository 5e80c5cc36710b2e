//! Parking by key: poison events hold up their own keys and no others, and everything is handled in the order of its key once
//! the handler is put right.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use reflex_core::{
    BufferedCursors, Consumer, CursorStore, DeadLetterStore, Event, HandlerError, MemoryCursors, MemoryDeadLetters,
    MemoryEvents, NewEvent, Selection, Spec, StreamFunc, consumer_fn, run, run_until,
};
use reflex_e2e::{Backend, seed};
use reflex_sql::{CursorsTable, ErrorsTable, ErrorsTableOptions, EventsTable};
use rpatterns::{Key, batch_by_len, dead_letter, keyed_lanes};
use sqlx::{Pool, Postgres};
use tokio::time::{Instant, sleep};

use crate::support::{Namespace, PATIENCE};

const KEYS: usize = 1_000;
const EVENTS_PER_KEY: usize = 10;
const LANES: usize = 8;
const NAME: &str = "charge";

/// How often a consumer looks for requested redrives.
const SOON: Duration = Duration::from_millis(50);
/// How often the test looks whether they are done.
const LOOK: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    Box::pin(journey("parking_memory", &InMemory::default(), Shape::Lanes)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_in_batches() {
    Box::pin(journey("parking_batches", &InMemory::default(), Shape::Batches)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let namespace = Namespace::sqlite().await;
    // A queue for one connection is fairer than the lock of SQLite, which many writers wait for in no order.
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect(&namespace.url).await.unwrap();
    Box::pin(journey("parking_sqlite", &InSql::open(&pool).await, Shape::Lanes)).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn on_postgres() {
    let namespace = Namespace::<Postgres>::postgres("parking").await;
    Box::pin(journey("parking_postgres", &InSql::open(&namespace.pool).await, Shape::Lanes)).await;
    namespace.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Postgres: cargo xtask test"]
async fn on_postgres_in_batches() {
    let namespace = Namespace::<Postgres>::postgres("parking_batches").await;
    Box::pin(journey("parking_postgres_batches", &InSql::open(&namespace.pool).await, Shape::Batches)).await;
    namespace.remove().await;
}

/// How the consumer goes through the stream.
#[derive(Clone, Copy)]
enum Shape {
    Lanes,
    Batches,
}

async fn journey(test: &str, world: &impl World, shape: Shape) {
    let mut rng = StdRng::seed_from_u64(seed(test).unwrap());
    let mut keys: Vec<_> = (1..=KEYS).flat_map(|key| [key; EVENTS_PER_KEY]).collect();
    keys.shuffle(&mut rng);
    world.append(&keys).await;
    let poison = (1..=keys.len() as i64).filter(|_| rng.random_ratio(1, 100)).collect();
    let shop = Shop::new(poison);

    // All other keys finish, and each poisoned one up to its poison.
    follow(world, &shop, shape, true).await;
    let expected = expected(&keys, &shop.poison);
    assert!(!expected.parked.is_empty());
    assert_eq!(shop.handled(), expected.handled);
    assert_eq!(world.open().await, expected.parked);

    // The handler is put right, and while the letters are redriven more events of all keys come.
    shop.repaired.store(true, Ordering::Relaxed);
    world.request_all().await;
    world.append(&(1..=KEYS).collect::<Vec<_>>()).await;
    follow(world, &shop, shape, false).await;
    let all = (1..=KEYS).map(|key| (key, (1..=EVENTS_PER_KEY + 1).collect()));
    let ids: BTreeMap<_, Vec<_>> = all.collect();
    assert_eq!(shop.places(&keys), ids, "each event once, in the order of its key");
}

/// Runs the consumer to the head, or until no letter is open.
async fn follow(world: &impl World, shop: &Shop, shape: Shape, to_head: bool) {
    match shape {
        Shape::Lanes => {
            let inner = dead_letter(world.letters(), shop.events()).park_by_key().redrive_interval(SOON);
            run_one(world, keyed_lanes(LANES, Key::by_foreign_id(), inner), to_head).await;
        }
        Shape::Batches => {
            let inner = dead_letter(world.letters(), shop.batches()).park_by_key().redrive_interval(SOON);
            run_one(world, batch_by_len(50, inner), to_head).await;
        }
    }
}

async fn run_one(world: &impl World, consumer: impl Consumer, to_head: bool) {
    let cursors = BufferedCursors::new(world.cursors());
    let spec = Spec::new(world.stream(), cursors, consumer);
    if to_head {
        let error = run(&mut spec.to_head()).await.unwrap_err();
        assert!(error.is_head_reached(), "{error:?}");
        return;
    }
    let mut spec = spec;
    let done = redriven(world);
    let error = run_until(&mut spec, done).await.unwrap_err();
    assert!(error.is_stopped(), "{error:?}");
}

/// Requests what is put aside until nothing is and the stream is at its end.
async fn redriven(world: &impl World) {
    let due = Instant::now() + PATIENCE * 5;
    let all = (KEYS * (EVENTS_PER_KEY + 1)) as i64;
    loop {
        let cursor = world.cursors().get(NAME).await.unwrap().and_then(|cursor| cursor.as_i64());
        let open = world.open().await;
        if cursor == Some(all) && open.is_empty() {
            return;
        }
        assert!(Instant::now() < due, "cursor {cursor:?}, still open: {open:?}");
        // What parked behind a letter since the last look has to be requested too.
        world.request_all().await;
        sleep(LOOK).await;
    }
}

/// What is handled and what is put aside as long as poison is poison: the keys' events by their ids, in order.
struct Expected {
    handled: BTreeMap<usize, Vec<i64>>,
    parked: BTreeMap<usize, Vec<i64>>,
}

fn expected(keys: &[usize], poison: &HashSet<i64>) -> Expected {
    let mut expected = Expected { handled: BTreeMap::new(), parked: BTreeMap::new() };
    for (key, id) in keys.iter().zip(1..) {
        let parks = expected.parked.contains_key(key) || poison.contains(&id);
        let of = if parks { &mut expected.parked } else { &mut expected.handled };
        of.entry(*key).or_default().push(id);
    }
    expected
}

/// The business logic, which cannot handle some events until it is put right.
#[derive(Clone)]
struct Shop {
    poison: Arc<HashSet<i64>>,
    repaired: Arc<AtomicBool>,
    handled: Arc<Mutex<Vec<(usize, i64)>>>,
}

impl Shop {
    fn new(poison: HashSet<i64>) -> Self {
        Self { poison: Arc::new(poison), repaired: Arc::default(), handled: Arc::default() }
    }

    fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        let pairs: Vec<_> = events.iter().map(pair).collect();
        let poisoned = pairs.iter().find(|(_, id)| self.poison.contains(id));
        if let Some((_, id)) = poisoned.filter(|_| !self.repaired.load(Ordering::Relaxed)) {
            return Err(HandlerError::new(format!("event {id} is poison")));
        }
        self.handled.lock().unwrap().extend(pairs);
        Ok(())
    }

    fn events(&self) -> impl Consumer + Clone + 'static {
        let shop = self.clone();
        consumer_fn(NAME, move |event: Event| {
            let handled = shop.handle(&[event]);
            async {
                tokio::task::yield_now().await;
                handled
            }
        })
    }

    fn batches(&self) -> impl Consumer<Vec<Event>> + Clone + 'static {
        let shop = self.clone();
        consumer_fn(NAME, move |batch: Vec<Event>| {
            let handled = shop.handle(&batch);
            async { handled }
        })
    }

    /// The ids of what was handled, by key, in the order of the handling.
    fn handled(&self) -> BTreeMap<usize, Vec<i64>> {
        by_key(self.handled.lock().unwrap().iter().copied())
    }

    /// The same by the places that events have among those of their key, counted from 1.
    fn places(&self, keys: &[usize]) -> BTreeMap<usize, Vec<usize>> {
        let order = by_key(keys.iter().copied().chain(1..=KEYS).zip(1..));
        let place = |key: usize, id: i64| order[&key].iter().position(|other| *other == id).map(|at| at + 1);
        let handled = self.handled().into_iter();
        handled.map(|(key, ids)| (key, ids.into_iter().filter_map(|id| place(key, id)).collect())).collect()
    }
}

fn pair(event: &Event) -> (usize, i64) {
    (event.foreign_id().parse().unwrap(), event.id().as_i64().unwrap())
}

fn by_key(pairs: impl IntoIterator<Item = (usize, i64)>) -> BTreeMap<usize, Vec<i64>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    pairs.into_iter().for_each(|(key, id)| keys.entry(key).or_default().push(id));
    keys
}

/// Where events, cursors and letters are.
trait World: Sync {
    fn stream(&self) -> impl StreamFunc;
    fn cursors(&self) -> impl CursorStore;
    fn letters(&self) -> impl DeadLetterStore + Clone + 'static;
    async fn append(&self, keys: &[usize]);
    fn request_all(&self) -> impl Future<Output = ()> + Send;
    fn open(&self) -> impl Future<Output = BTreeMap<usize, Vec<i64>>> + Send;
}

#[derive(Default)]
struct InMemory {
    events: MemoryEvents,
    cursors: MemoryCursors,
    letters: MemoryDeadLetters,
}

impl World for InMemory {
    fn stream(&self) -> impl StreamFunc {
        self.events.clone()
    }

    fn cursors(&self) -> impl CursorStore {
        self.cursors.clone()
    }

    fn letters(&self) -> impl DeadLetterStore + Clone + 'static {
        self.letters.clone()
    }

    async fn append(&self, keys: &[usize]) {
        keys.iter().for_each(|key| drop(self.events.append(NewEvent::new(*key as i64, 1))));
    }

    async fn request_all(&self) {
        self.letters.request(NAME, &Selection::All).unwrap();
    }

    async fn open(&self) -> BTreeMap<usize, Vec<i64>> {
        by_key(self.letters.open(NAME).iter().map(|letter| pair(&letter.event)))
    }
}

struct InSql<D: Backend> {
    pool: Pool<D>,
    events: EventsTable<D>,
    cursors: CursorsTable<D>,
    errors: ErrorsTable<D>,
}

impl<D: Backend> InSql<D> {
    async fn open(pool: &Pool<D>) -> Self {
        let options = ErrorsTableOptions::new("consumer_errors").metrics(&crate::support::metrics());
        Self {
            pool: pool.clone(),
            events: EventsTable::open(pool, "events").await.unwrap(),
            cursors: CursorsTable::open(pool, "cursors").await.unwrap(),
            errors: ErrorsTable::open(pool, options).await.unwrap(),
        }
    }
}

impl<D: Backend> World for InSql<D> {
    fn stream(&self) -> impl StreamFunc {
        self.events.clone()
    }

    fn cursors(&self) -> impl CursorStore {
        self.cursors.clone()
    }

    fn letters(&self) -> impl DeadLetterStore + Clone + 'static {
        self.errors.clone()
    }

    async fn append(&self, keys: &[usize]) {
        for keys in keys.chunks(500) {
            let mut tx = self.pool.begin().await.unwrap();
            let events = keys.iter().map(|key| NewEvent::new(*key as i64, 1));
            let notify = self.events.insert_all(&mut tx, events).await.unwrap();
            tx.commit().await.unwrap();
            notify.send();
        }
    }

    async fn request_all(&self) {
        self.errors.request(NAME, &Selection::All).await.unwrap();
    }

    async fn open(&self) -> BTreeMap<usize, Vec<i64>> {
        let letters = self.errors.list(Some(NAME), 100_000).await.unwrap();
        by_key(letters.iter().map(|letter| pair(&letter.letter.event)))
    }
}
