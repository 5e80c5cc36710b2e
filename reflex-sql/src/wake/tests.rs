//! The sender and the listener against wake-ups in memory, with the clock paused.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reflex_core::{BoxHints, Error, Metrics};
use tokio::{sync::broadcast, task::JoinSet, time::Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A topic whose connections can be broken.
#[derive(Clone)]
struct Memory(Arc<State>);

struct State {
    topic: Mutex<broadcast::Sender<String>>,
    rung: Mutex<Vec<(Instant, String)>>,
    /// Messages are taken and do not arrive.
    mute: AtomicBool,
    refuse: AtomicBool,
    listened: AtomicUsize,
}

impl Memory {
    fn new() -> Self {
        Self(Arc::new(State {
            topic: Mutex::new(broadcast::Sender::new(100)),
            rung: Mutex::default(),
            mute: AtomicBool::new(false),
            refuse: AtomicBool::new(false),
            listened: AtomicUsize::new(0),
        }))
    }

    fn cut(&self) {
        *self.0.topic.lock().unwrap() = broadcast::Sender::new(100);
    }

    fn set(&self, switch: impl Fn(&State) -> &AtomicBool, on: bool) {
        switch(&self.0).store(on, Ordering::SeqCst);
    }

    fn listened(&self) -> usize {
        self.0.listened.load(Ordering::SeqCst)
    }

    fn hints(&self) -> Vec<Instant> {
        let rung = self.0.rung.lock().unwrap();
        rung.iter().filter(|(_, message)| message.starts_with("hint")).map(|(at, _)| *at).collect()
    }

    fn probes(&self) -> usize {
        self.0.rung.lock().unwrap().iter().filter(|(_, message)| message.starts_with("probe")).count()
    }

    fn refused(&self) -> reflex_core::Result<()> {
        if self.0.refuse.load(Ordering::SeqCst) { Err(Error::stream("refused", "as told")) } else { Ok(()) }
    }
}

impl WakeUps for Memory {
    async fn listen(&self, _topic: &str) -> reflex_core::Result<BoxHints> {
        self.refused()?;
        self.0.listened.fetch_add(1, Ordering::SeqCst);
        let receiver = self.0.topic.lock().unwrap().subscribe();
        let hints = stream::unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await.ok()?), receiver)));
        Ok(hints.boxed())
    }

    async fn ring(&self, _topic: &str, message: &str) -> reflex_core::Result<()> {
        self.refused()?;
        self.0.rung.lock().unwrap().push((Instant::now(), message.to_owned()));
        if !self.0.mute.load(Ordering::SeqCst) {
            let _nobody_listens = self.0.topic.lock().unwrap().send(message.to_owned());
        }
        Ok(())
    }
}

/// A table, as far as wake-ups know it.
struct Side {
    bell: Arc<Bell>,
    local: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Side {
    fn new(memory: &Memory) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap().events_table("events");
        let wake_ups = BoxWakeUps::new(memory.clone());
        let remote = Remote::new(wake_ups, "topic".into(), "events".into(), PATIENCE, metrics);
        let local = Arc::new(Notify::new());
        Self { bell: Arc::new(Bell::new(local.clone(), Some(remote))), local, tasks: JoinSet::new() }
    }

    fn sending(mut self) -> Self {
        self.tasks.spawn(self.bell.clone().send_hints());
        self
    }

    /// Listens, and looks once.
    async fn listening(mut self) -> Self {
        let bell = self.bell.clone();
        self.tasks.spawn(async move { match listen(bell).await {} });
        assert!(self.woken(PATIENCE).await, "the reader looks once it is known that hints arrive");
        assert!(self.bell.hears());
        self
    }

    /// Whether the reader is woken within this time.
    async fn woken(&self, within: Duration) -> bool {
        timeout(within, self.local.notified()).await.is_ok()
    }

    fn metrics(&self) -> &EventsTableMetrics {
        &self.bell.remote.as_ref().unwrap().metrics
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_hint_goes_at_once_and_the_next_ones_are_shared() {
    let memory = Memory::new();
    let side = Side::new(&memory).sending();
    let began = Instant::now();
    for _ in 0..1_000 {
        side.bell.ring();
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let hints = memory.hints();
    assert!(hints[0] - began < Duration::from_millis(2), "{:?}", hints[0] - began);
    assert!((90..=101).contains(&hints.len()), "{}", hints.len());
    assert!(hints.windows(2).all(|pair| pair[1] - pair[0] >= BETWEEN_HINTS), "{hints:?}");
    assert!(*hints.last().unwrap() >= began + Duration::from_millis(990), "the last commits have a hint too");
    assert_eq!(side.metrics().wake_ups_sent.get(), hints.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_cannot_be_sent_is_sent_later() {
    let memory = Memory::new();
    let side = Side::new(&memory).sending();
    memory.set(|state| &state.refuse, true);
    side.bell.ring();
    sleep(Duration::from_secs(60)).await;
    let failed = side.metrics().wake_ups_failed.get();
    assert!((5..=20).contains(&failed), "{failed}");
    memory.set(|state| &state.refuse, false);
    sleep(LONGEST_DELAY).await;
    assert_eq!(memory.hints().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn hints_wake_the_readers_of_others_and_not_our_own() {
    let memory = Memory::new();
    let (here, there) = (Side::new(&memory).sending().listening().await, Side::new(&memory).listening().await);
    here.bell.ring();
    assert!(there.woken(BETWEEN_HINTS).await);
    assert!(here.woken(Duration::ZERO).await, "the bell wakes the reader at hand by itself");
    assert!(!here.woken(Duration::from_secs(1)).await, "the hint came back and woke its sender");
    assert!(!there.woken(PATIENCE * 10).await, "a test whether messages arrive woke the reader");
    assert_eq!((here.metrics().wake_ups_received.get(), there.metrics().wake_ups_received.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn many_hints_at_once_wake_the_reader_seldom() {
    let memory = Memory::new();
    let side = Side::new(&memory).listening().await;
    let others: Vec<_> = (0..50).map(|_| Side::new(&memory)).collect();
    for other in &others {
        other.bell.ring_through().await.unwrap();
    }
    let mut looks = 0;
    while side.woken(Duration::from_secs(1)).await {
        looks += 1;
    }
    assert!((1..=2).contains(&looks), "{looks}");
    assert_eq!(side.metrics().wake_ups_received.get(), 50);
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_connection_looks_once_it_listens_again() {
    let memory = Memory::new();
    let side = Side::new(&memory).listening().await;
    assert_eq!(side.metrics().wake_ups_connected.get(), 1);
    memory.set(|state| &state.refuse, true);
    memory.cut();
    assert!(!side.woken(PATIENCE).await);
    assert!(!side.bell.hears());
    assert_eq!(side.metrics().wake_ups_connected.get(), 0);
    memory.set(|state| &state.refuse, false);
    assert!(side.woken(PATIENCE * 10).await);
    assert!(side.bell.hears());
    assert_eq!(memory.listened(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_carries_nothing_is_given_up() {
    let memory = Memory::new();
    let side = Side::new(&memory).listening().await;
    sleep(PATIENCE * 100).await;
    assert_eq!(memory.listened(), 1, "a connection that works is kept, however silent the table is");
    assert!(memory.probes() >= 90, "{}", memory.probes());
    memory.set(|state| &state.mute, true);
    sleep(PATIENCE * 3).await;
    assert!(!side.bell.hears());
    assert!(memory.listened() >= 2);
    memory.set(|state| &state.mute, false);
    assert!(side.woken(PATIENCE * 10).await);
    assert!(side.bell.hears());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_nothing_arrives_at_never_counts() {
    let memory = Memory::new();
    memory.set(|state| &state.mute, true);
    let mut side = Side::new(&memory);
    let bell = side.bell.clone();
    side.tasks.spawn(async move { match listen(bell).await {} });
    let hour = Duration::from_secs(60 * 60);
    assert!(!side.woken(hour).await, "nothing is known to arrive");
    assert!(!side.bell.hears());
    assert!((50..=150).contains(&memory.listened()), "{} times in an hour", memory.listened());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_can_wait_for_its_hint() {
    let memory = Memory::new();
    let (here, there) = (Side::new(&memory), Side::new(&memory).listening().await);
    here.bell.ring_through().await.unwrap();
    assert!(there.woken(BETWEEN_HINTS).await);
    memory.set(|state| &state.refuse, true);
    assert!(here.bell.ring_through().await.is_err());
}
