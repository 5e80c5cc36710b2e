use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::IntCounter;
use reflex_core::{
    BufferedCursors, Consumer, CursorStore, Event, HandlerError, MemoryCursors, Spec, StreamFunc, consumer_fn,
    run_until,
};
use reflex_e2e::{Backend, Record};
use reflex_sql::{CursorsTable, CursorsTableOptions, EventsTable, EventsTableOptions, TransactionalCursors};
use reflex_testing::{await_cursor, eventually};
use rpatterns::batch;
use sqlx::Pool;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{PATIENCE, metrics, run};

/// A consumer whose run has ended runs again after this long.
const PAUSE: Duration = Duration::from_millis(10);
/// So many looks at the table must not make a consumer pass what it has to wait for.
const LOOKS: u64 = 6;
/// So many messages of failed runs are kept.
const MAX_MESSAGES: usize = 50;

/// Consumers, each of a kind of its own, which run again whenever their run has ended.
pub(super) struct Runners<D: Backend> {
    runners: Vec<Arc<Runner>>,
    /// Counts the looks at each of the tables that they read.
    polls: Vec<IntCounter>,
    goal: watch::Sender<Option<i64>>,
    tasks: JoinSet<()>,
    /// How to see the cursors, whatever happens to the consumers.
    cursors: CursorsTable<D>,
}

/// What one consumer saw.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) record: Record,
}

impl<D: Backend> Runners<D> {
    /// Starts them. They reach the database by `consumers`, which is where faults may be.
    pub(super) async fn start(direct: &Pool<D>, consumers: &Pool<D>, deadline: Duration) -> Self {
        run(direct, "create table effects (event_id bigint not null)").await;
        let (goal, _) = watch::channel(None);
        let cursors = CursorsTable::open(direct, "cursors").await.unwrap();
        let mut runners = Self { runners: Vec::new(), polls: Vec::new(), goal, tasks: JoinSet::new(), cursors };
        let options = || EventsTableOptions::new("events").deadline(deadline);
        let newest = runners.open(consumers, options().poll_interval(Duration::from_millis(50))).await;
        // Its consumers fall out of the ring all the time, and read the table by themselves.
        let small = options().poll_interval(Duration::from_millis(100)).ring_events(50).page_size(200);
        let behind = runners.open(consumers, small).await;
        let cursors = CursorsTableOptions::new("cursors").deadline(deadline).metrics(&metrics());
        let cursors = CursorsTable::open(consumers, cursors).await.unwrap();

        let runner = runners.runner("newest");
        let consumer = consumer_fn("newest", runner.clone().sees());
        runners.run(runner, Spec::new(newest.clone(), buffered(&cursors), consumer));
        // Nothing but its stream can tell it of a fault.
        let (runner, memory) = (runners.runner("watching"), MemoryCursors::new());
        let consumer = consumer_fn("watching", runner.clone().sees());
        runners.run_with(runner, memory.clone(), Spec::new(newest.clone(), memory, consumer));
        let runner = runners.runner("behind");
        let consumer = consumer_fn("behind", runner.clone().sees_slowly(runners.goal.subscribe()));
        runners.run(runner, Spec::new(behind, buffered(&cursors), consumer));
        let runner = runners.runner("effects");
        let cursors = TransactionalCursors::new(cursors);
        let handler = runner.clone();
        let consumer = cursors.consumer("effects", move |mut tx, events: Vec<Event>| {
            let handler = handler.clone();
            async move {
                let sql = handler.see_all(&events)?;
                // The statements of a handler are its own, and so is their deadline.
                Ok(timeout(deadline, D::run_sql(&mut tx, sql)).await??)
            }
        });
        runners.run(runner, Spec::new(newest, cursors, batch(200, Duration::from_millis(20), consumer)));
        runners
    }

    /// Waits until each has been handed later events than ever before.
    pub(super) async fn get_on(&self) {
        for runner in &self.runners {
            let before = runner.last();
            eventually(&runner.described("to get on"), PATIENCE, || async { runner.last() > before }).await;
        }
    }

    /// How many runs of each have ended with an error.
    pub(super) fn failures(&self) -> Vec<u64> {
        self.runners.iter().map(|runner| runner.failures()).collect()
    }

    /// Waits until a run of each has ended with an error since these were counted.
    pub(super) async fn fail_since(&self, before: &[u64]) {
        for (runner, before) in self.runners.iter().zip(before) {
            eventually(&runner.described("to fail"), PATIENCE, || async { runner.failures() > *before }).await;
        }
    }

    /// Waits until a run of any has ended with an error since these were counted.
    pub(super) async fn fail_since_any(&self, before: &[u64]) {
        eventually("a run to fail", PATIENCE, || async { self.failures() != before }).await;
    }

    /// Sees to it that none gets as far as this id while the table is looked at a good number of times.
    pub(super) async fn wait_at(&self, held: i64) {
        let enough: Vec<_> = self.polls.iter().map(|polls| polls.get() + LOOKS).collect();
        let looked = || self.polls.iter().zip(&enough).all(|(polls, enough)| polls.get() >= *enough);
        eventually("the readers to look", PATIENCE, || async { looked() }).await;
        for runner in &self.runners {
            assert!(runner.last() < held, "`{}` is at {}, past {held}, which is held", runner.name, runner.last());
        }
    }

    /// What the errors said.
    pub(super) fn messages(&self) -> Vec<String> {
        self.runners.iter().flat_map(|runner| runner.messages.lock().unwrap().clone()).collect()
    }

    /// Ends each when it has stored this cursor, or has had time enough. Returns what they saw.
    pub(super) async fn finish(&mut self, last: i64) -> Vec<Seen> {
        self.goal.send_replace(Some(last));
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let seen = |runner: &Arc<Runner>| Seen { name: runner.name.to_owned(), record: runner.record().clone() };
        self.runners.iter().map(seen).collect()
    }

    async fn open(&mut self, pool: &Pool<D>, options: EventsTableOptions) -> EventsTable<D> {
        let metrics = metrics();
        let table = EventsTable::open(pool, options.metrics(&metrics)).await.unwrap();
        self.polls.push(metrics.events_table("events").polls);
        table
    }

    fn runner(&mut self, name: &'static str) -> Arc<Runner> {
        let runner = Arc::new(Runner { name, ..Runner::default() });
        self.runners.push(runner.clone());
        runner
    }

    fn run<S, C, K>(&mut self, runner: Arc<Runner>, spec: Spec<S, C, K>)
    where
        S: StreamFunc + 'static,
        C: CursorStore + 'static,
        K: Consumer + 'static,
    {
        self.run_with(runner, self.cursors.clone(), spec);
    }

    /// Runs it until the cursor that is `stored` has reached the goal.
    fn run_with<S, C, K>(&mut self, runner: Arc<Runner>, stored: impl CursorStore + 'static, spec: Spec<S, C, K>)
    where
        S: StreamFunc + 'static,
        C: CursorStore + 'static,
        K: Consumer + 'static,
    {
        let spec = spec.metrics(&metrics());
        self.tasks.spawn(runner.run(spec, stored, self.goal.subscribe()));
    }
}

fn buffered<D: Backend>(cursors: &CursorsTable<D>) -> BufferedCursors<CursorsTable<D>> {
    BufferedCursors::new(cursors.clone()).max_sets(50)
}

/// One consumer.
#[derive(Default)]
struct Runner {
    name: &'static str,
    record: Mutex<Record>,
    failures: AtomicU64,
    messages: Mutex<Vec<String>>,
}

impl Runner {
    async fn run<S: StreamFunc, C: CursorStore, K: Consumer>(
        self: Arc<Self>,
        mut spec: Spec<S, C, K>,
        stored: impl CursorStore,
        goal: watch::Receiver<Option<i64>>,
    ) {
        loop {
            self.record().restart();
            let (mut goal, stored) = (goal.clone(), &stored);
            let over = async {
                let last = goal.wait_for(Option::is_some).await.map(|goal| goal.unwrap_or_default());
                // If it takes too long the check finds out.
                let _reached = await_cursor(stored, self.name, last.unwrap_or_default(), PATIENCE).await;
            };
            let Err(end) = run_until(&mut spec, over).await;
            if end.is_stopped() {
                return;
            }
            self.failed(end);
            sleep(PAUSE).await;
        }
    }

    fn failed(&self, error: reflex_core::Error) {
        let mut messages = self.messages.lock().unwrap();
        if messages.len() < MAX_MESSAGES {
            messages.push(format!("{:#}", anyhow::Error::from(error)));
        }
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    fn sees(self: Arc<Self>) -> impl FnMut(Event) -> std::future::Ready<Result<(), HandlerError>> {
        move |event| std::future::ready(self.record().see(&event).map_err(HandlerError::new))
    }

    /// Slower than the writers, as long as they write.
    fn sees_slowly(
        self: Arc<Self>,
        goal: watch::Receiver<Option<i64>>,
    ) -> impl FnMut(Event) -> std::pin::Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>> {
        move |event| {
            let seen = self.record().see(&event).map_err(HandlerError::new);
            let slow = goal.borrow().is_none() && event.id_as_i64().is_ok_and(|id| id % 10 == 0);
            Box::pin(async move {
                if slow {
                    sleep(Duration::from_millis(5)).await;
                }
                seen
            })
        }
    }

    /// Notes a batch; returns the statement of its effects.
    fn see_all(&self, events: &[Event]) -> Result<String, HandlerError> {
        let mut record = self.record();
        events.iter().try_for_each(|event| record.see(event))?;
        let rows: Vec<_> = events.iter().map(|event| format!("({})", event.id())).collect();
        Ok(format!("insert into effects (event_id) values {}", rows.join(", ")))
    }

    fn described(&self, what: &str) -> String {
        format!(
            "consumer `{}` {what}, which is at {} and says {:?}",
            self.name,
            self.last(),
            self.messages.lock().unwrap()
        )
    }

    fn last(&self) -> i64 {
        self.record().last()
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }
}
