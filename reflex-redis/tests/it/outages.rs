//! Servers that are down, go away or fall silent: the run ends with an error, and the next one goes on.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::Client;
use reflex_core::{Cursor, CursorStore, Event, NewEvent, Spec, StreamOptions, consumer_fn, run_until};
use reflex_redis::{RedisCursors, RedisCursorsOptions, RedisStream, RedisStreamOptions};
use reflex_testing::{History, collect, eventually};
use test_servers::{Proxy, Redis};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::redis_server::{PATIENCE, assert_tells, blocking, chain, client, start};

const DEADLINE: Duration = Duration::from_secs(2);

/// Its data survives a kill of the machine as well.
async fn durable() -> Arc<Redis> {
    start(Redis::options().setting("appendfsync", "always")).await
}

fn stream(client: &Client) -> RedisStream {
    let options = RedisStreamOptions::new("orders").deadline(DEADLINE).block(Duration::from_millis(500)).page_size(100);
    RedisStream::new(client, options).unwrap()
}

fn cursors(client: &Client) -> RedisCursors {
    let options = RedisCursorsOptions::default().ordered_entry_ids().deadline(DEADLINE);
    RedisCursors::new(client, options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_run_goes_on_after_redis_was_killed() {
    let server = durable().await;
    let journey = Journey::begin(&client(&server), &client(&server));
    for _ in 0..4 {
        journey.runner.consumes_more().await;
        let failures = journey.runner.failures();
        blocking(&server, Redis::kill).await;
        // The first run is in the middle of something, the second one finds nobody.
        eventually("errors of two runs", PATIENCE, || async { journey.runner.failures() > failures + 1 }).await;
        blocking(&server, Redis::restart).await;
    }
    assert!(journey.runner.said("is Redis running and in reach?"));
    journey.end(&client(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_run_ends_when_redis_falls_silent() {
    let server = durable().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let journey = Journey::begin(&Client::open(server.url_via(proxy.addr())).unwrap(), &client(&server));
    for _ in 0..2 {
        journey.runner.consumes_more().await;
        let failures = journey.runner.failures();
        proxy.stall();
        eventually("errors of two runs", PATIENCE, || async { journey.runner.failures() > failures + 1 }).await;
        proxy.cut().await;
        proxy.resume();
    }
    assert!(journey.runner.said("no answer within 2 s"));
    journey.end(&client(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_run_goes_on_after_connections_were_cut_and_refused() {
    let server = durable().await;
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let journey = Journey::begin(&Client::open(server.url_via(proxy.addr())).unwrap(), &client(&server));
    for _ in 0..3 {
        journey.runner.consumes_more().await;
        let failures = journey.runner.failures();
        proxy.cut().await;
        eventually("an error of the run", PATIENCE, || async { journey.runner.failures() > failures }).await;

        journey.runner.consumes_more().await;
        let failures = journey.runner.failures();
        proxy.refuse().await;
        proxy.cut().await;
        eventually("errors of two runs", PATIENCE, || async { journey.runner.failures() > failures + 1 }).await;
        proxy.accept().await.unwrap();
    }
    journey.end(&client(&server)).await;
}

#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_store_is_made_while_redis_is_down() {
    let server = durable().await;
    blocking(&server, Redis::stop).await;
    let (cursors, stream) = (cursors(&client(&server)), stream(&client(&server)));
    let error = cursors.get("billing").await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "reflex:cursors:billing", "is Redis running and in reach?"]);
    let error = collect(&stream, StreamOptions::new()).await.unwrap_err();
    assert_tells(&chain(&error), &["orders", "is Redis running and in reach?"]);
    assert!(stream.append(NewEvent::new("order-12", 1)).await.is_err());
    blocking(&server, Redis::restart).await;
    cursors.set("billing", &7.into()).await.unwrap();
    stream.append(NewEvent::new("order-12", 1)).await.unwrap();
    assert_eq!(collect(&stream, StreamOptions::new()).await.unwrap().len(), 1);
}

/// A connection that fell silent is given up for good: nothing ever cuts it here.
#[tokio::test]
#[ignore = "needs Redis: cargo xtask test"]
async fn a_silent_connection_is_given_up() {
    let server = durable().await;
    let (silent, good) = (Proxy::start(server.addr()).await.unwrap(), client(&server));
    let cursors = cursors(&Client::open(server.url_via(silent.addr())).unwrap());
    cursors.set("billing", &1.into()).await.unwrap();
    silent.stall();
    let error = cursors.set("billing", &2.into()).await.unwrap_err();
    assert_tells(&chain(&error), &["billing", "no answer within 2 s"]);
    assert_eq!(silent.connections().await, 1);
    // It connects again, in vain.
    cursors.get("billing").await.unwrap_err();
    assert_eq!(silent.connections().await, 2);
    silent.resume();
    cursors.set("billing", &3.into()).await.unwrap();
    assert_eq!(self::cursors(&good).get("billing").await.unwrap(), Some(3.into()));
}

/// A writer, a consumer that is run again whenever its run ends, and somebody who watches its cursor.
struct Journey {
    runner: Runner,
    stop_writing: watch::Sender<bool>,
    writing: tokio::task::JoinHandle<Vec<Cursor>>,
    goal: watch::Sender<Option<i64>>,
    running: tokio::task::JoinHandle<()>,
    watching: tokio::task::JoinHandle<()>,
}

impl Journey {
    /// The consumer goes by one way, the writer and the watcher by another.
    fn begin(consumer: &Client, others: &Client) -> Self {
        let runner = Runner::default();
        let (goal, goal_set) = watch::channel(None);
        let (stop_writing, stopped) = watch::channel(false);
        Self {
            running: tokio::spawn(runner.clone().run(consumer.clone(), goal_set.clone())),
            runner,
            stop_writing,
            writing: tokio::spawn(write(stream(others), stopped)),
            goal,
            watching: tokio::spawn(watch_cursor(cursors(others), goal_set)),
        }
    }

    /// Lets the consumer come to the end and checks what it was handed.
    async fn end(self, direct: &Client) {
        self.runner.consumes_more().await;
        self.stop_writing.send(true).unwrap();
        let told = self.writing.await.unwrap();
        let committed = collect(&stream(direct), StreamOptions::new()).await.unwrap();
        let committed: Vec<_> = committed.iter().map(|event| number(event.id())).collect();
        let missing: Vec<_> = told.iter().filter(|id| !committed.contains(&number(id))).collect();
        assert!(missing.is_empty(), "appended before a crash and not there: {missing:?}");
        self.goal.send(committed.last().copied()).unwrap();
        self.running.await.unwrap();
        self.watching.await.unwrap();
        let report = self.runner.history().check(&committed).unwrap();
        println!("{report:?}, {} failures", self.runner.failures());
        let stored = cursors(direct).get("survivor").await.unwrap();
        assert_eq!(stored.map(|cursor| number(&cursor)), committed.last().copied());
    }
}

#[derive(Clone, Default)]
struct Runner {
    history: Arc<Mutex<History>>,
    seen: Arc<AtomicUsize>,
    last: Arc<Mutex<i64>>,
    messages: Arc<Mutex<Vec<String>>>,
}

impl Runner {
    async fn run(self, client: Client, goal: watch::Receiver<Option<i64>>) {
        let seen = self.clone();
        let consumer = consumer_fn("survivor", move |event: Event| {
            seen.see(number(event.id()));
            async { Ok(()) }
        });
        let mut spec = Spec::new(stream(&client), cursors(&client), consumer);
        loop {
            self.history().resume();
            let over = async {
                while !goal.borrow().is_some_and(|goal| *self.last.lock().unwrap() >= goal) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let Err(end) = timeout(PATIENCE * 3, run_until(&mut spec, over)).await.expect("a run does not hang");
            if end.is_stopped() {
                return;
            }
            assert!(!end.is_expected() && !end.is_head_reached() && !end.is_cursor_backwards(), "{}", chain(&end));
            self.messages.lock().unwrap().push(chain(&end));
        }
    }

    fn see(&self, id: i64) {
        self.history().see(id);
        self.seen.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().unwrap();
        *last = id.max(*last);
    }

    async fn consumes_more(&self) {
        let before = self.seen.load(Ordering::SeqCst);
        eventually("more events", PATIENCE, || async { self.seen.load(Ordering::SeqCst) > before + 50 }).await;
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    fn failures(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    fn said(&self, text: &str) -> bool {
        self.messages.lock().unwrap().iter().any(|message| message.contains(text))
    }
}

/// Appends until it is stopped, whatever happens. Returns the ids that were certainly appended.
async fn write(stream: RedisStream, stopped: watch::Receiver<bool>) -> Vec<Cursor> {
    let mut told = Vec::new();
    for foreign_id in 1.. {
        if *stopped.borrow() {
            break;
        }
        told.extend(stream.append(NewEvent::new(foreign_id, 1)).await);
        sleep(Duration::from_millis(2)).await;
    }
    told
}

/// Looks at the stored cursor until there is a goal, and fails if it ever moves backwards.
async fn watch_cursor(cursors: RedisCursors, goal: watch::Receiver<Option<i64>>) {
    let mut highest = 0;
    while goal.borrow().is_none() {
        if let Ok(Some(stored)) = cursors.get("survivor").await {
            assert!(number(&stored) >= highest, "the cursor moved from {highest} back to {stored}");
            highest = number(&stored);
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(highest > 0, "no cursor was seen");
}

/// An entry id as one number, of which the lowest five digits are the sequence.
fn number(id: &Cursor) -> i64 {
    let id = id.to_string();
    let (millis, sequence) = id.split_once('-').unwrap();
    let sequence: i64 = sequence.parse().unwrap();
    assert!(sequence < 100_000);
    millis.parse::<i64>().unwrap() * 100_000 + sequence
}
