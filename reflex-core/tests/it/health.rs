//! Each state of a consumer, what brings it about and what ends it, and whether it is healthy.

mod ends;

use std::{
    fmt::Debug,
    future::{pending, ready},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join;
use reflex_core::{
    Blocked, BoxSpec, ConsumerHealth, ConsumerState, Cursor, CursorStore, Event, HandlerError, Health, MemoryCursors,
    MemoryEvents, NewEvent, Opened, Progress, Result, Spec, StreamFunc, StreamOptions, StreamPosition, consumer_fn,
    run, run_until,
};
use reflex_testing::{ScriptedConsumer, Step};
use tokio::{sync::oneshot, time::sleep};

use crate::support::{Scrape, filled};

const MINUTE: Duration = Duration::from_secs(60);

#[track_caller]
fn only(health: &Health) -> ConsumerHealth {
    let mut consumers = health.consumers();
    assert_eq!(consumers.len(), 1);
    consumers.remove(0)
}

/// What is seen while the spec is run for so long, and then dropped.
async fn seen_after(time: Duration, health: &Health, spec: &mut BoxSpec) -> ConsumerHealth {
    let mut run = pin!(run(spec));
    go_on(run.as_mut(), time).await;
    only(health)
}

/// Lets a run go on for so long.
async fn go_on(run: Pin<&mut impl Future<Output: Debug>>, time: Duration) {
    tokio::select! {
        ended = run => panic!("it ended: {ended:?}"),
        () = sleep(time) => {}
    }
}

#[track_caller]
fn check(seen: &ConsumerHealth, state: ConsumerState, healthy: bool) {
    assert_eq!((seen.state, seen.healthy), (state, healthy), "{seen}");
    assert_eq!(seen.healthy, seen.problem.is_none());
}

fn done(name: &'static str) -> impl reflex_core::Consumer + use<> {
    consumer_fn(name, |_event: Event| ready(Ok(())))
}

fn hangs_at(id: i64) -> impl reflex_core::Consumer {
    consumer_fn("billing", move |event: Event| async move {
        if event.id_as_i64()? == id {
            pending::<()>().await;
        }
        Ok(())
    })
}

#[tokio::test]
async fn what_was_never_run_is_not_healthy_and_no_consumer_is() {
    let health = Health::new();
    assert!(health.is_healthy());
    let spec = Spec::new(filled(1), MemoryCursors::new(), done("billing")).health(&health);
    let seen = only(&health);
    check(&seen, ConsumerState::NotStarted, false);
    assert_eq!((seen.runs, seen.events, &seen.cursor), (0, 0, &None));
    assert!(health.report().to_string().contains("consumer `billing`: not started since"));
    drop(spec);
}

#[tokio::test(start_paused = true)]
async fn at_the_head_it_waits_for_events_for_ever() {
    let health = Health::new();
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), done("billing")).health(&health).boxed();
    let seen = seen_after(MINUTE * 600, &health, &mut spec).await;
    check(&seen, ConsumerState::WaitingForEvents, true);
    assert_eq!((seen.cursor, seen.last_event_id, seen.events, seen.runs), (Some(3.into()), Some(3.into()), 3, 1));
    assert_eq!(seen.stalled, Duration::ZERO);
    let ago = chrono::Utc::now() - seen.last_progress.unwrap();
    assert!(ago >= chrono::TimeDelta::minutes(599), "{ago}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_named_by_its_event() {
    let health = Health::new();
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), hangs_at(2)).health(&health).boxed();
    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), MINUTE).await;
    check(&only(&health), ConsumerState::Running, true);
    go_on(run.as_mut(), Duration::from_secs(1)).await;
    let seen = only(&health);
    check(&seen, ConsumerState::Running, false);
    assert_eq!((seen.cursor, seen.last_event_id), (Some(1.into()), Some(2.into())));
    assert_eq!(seen.stalled.as_secs(), 61);
    assert!(seen.problem.unwrap().contains("handed over last is 2"));
    assert!(health.clone().patience(2 * MINUTE).is_healthy(), "each handle has a patience of its own");
}

/// A lane or a batch took the event, and answered that it is not done.
#[tokio::test(start_paused = true)]
async fn an_event_that_stays_pending_is_no_progress_though_the_stream_waits() {
    let health = Health::new();
    let consumer = ScriptedConsumer::new("lanes").at(1, Progress::Pending).at(2, Progress::Pending);
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), consumer).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    check(&seen, ConsumerState::WaitingForEvents, false);
    assert_eq!((seen.cursor, seen.last_event_id), (Some(1.into()), Some(3.into())));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_moves_a_part_of_the_way_leaves_the_rest_in_hand() {
    let health = Health::new();
    let consumer = ScriptedConsumer::new("lanes").at(0, Progress::Pending).at(1, Progress::UpTo(1.into()));
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    check(&seen, ConsumerState::WaitingForEvents, false);
    assert_eq!((seen.cursor, seen.last_event_id), (Some(1.into()), Some(2.into())));
}

#[tokio::test(start_paused = true)]
async fn progress_is_made_when_a_slow_handler_is_done() {
    let health = Health::new();
    let consumer = consumer_fn("billing", |_event: Event| async {
        sleep(50 * Duration::from_secs(1)).await;
        Ok(())
    });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).health(&health).boxed();
    let seen = seen_after(MINUTE, &health, &mut spec).await;
    let ago = chrono::Utc::now() - seen.last_progress.unwrap();
    assert!(ago.num_seconds() < 30, "{ago}");
}

#[tokio::test(start_paused = true)]
async fn what_is_done_later_is_progress() {
    let health = Health::new();
    let consumer = ScriptedConsumer::new("lanes").at(1, Progress::Pending).at(2, Progress::UpTo(3.into()));
    let mut spec = Spec::new(filled(3), MemoryCursors::new(), consumer).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    check(&seen, ConsumerState::WaitingForEvents, true);
    assert_eq!(seen.cursor, Some(3.into()));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_lag_is_healthy() {
    let health = Health::new();
    let spec = Spec::new(filled(1), MemoryCursors::new(), done("late")).lag(MINUTE * 600);
    let seen = seen_after(MINUTE * 10, &health, &mut spec.health(&health).boxed()).await;
    check(&seen, ConsumerState::WaitingForLag, true);
}

/// A source that yields what is given and tells what it is told to.
#[derive(Clone)]
struct Tells {
    events: MemoryEvents,
    position: Arc<Mutex<StreamPosition>>,
}

impl Tells {
    fn new(count: usize, position: StreamPosition) -> Self {
        Self { events: filled(count), position: Arc::new(Mutex::new(position)) }
    }

    fn tell(&self, position: StreamPosition) {
        *self.position.lock().unwrap() = position;
    }
}

impl StreamFunc for Tells {
    type Stream = reflex_core::BoxEventStream;

    async fn open(&self, options: StreamOptions) -> Result<Opened<Self::Stream>> {
        let position = self.position.clone();
        Ok(self.events.open(options).await?.status(move || position.lock().unwrap().clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn behind_is_healthy_as_long_as_there_is_progress() {
    let health = Health::new();
    let source = Tells::new(1, StreamPosition::behind(5));
    let mut spec = Spec::new(source.clone(), MemoryCursors::new(), done("billing")).health(&health).boxed();
    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), Duration::from_secs(1)).await;
    check(&only(&health), ConsumerState::Behind, true);
    go_on(run.as_mut(), MINUTE).await;
    let seen = only(&health);
    check(&seen, ConsumerState::Behind, true);
    assert_eq!(seen.behind, Some(5));

    source.events.append(NewEvent::new("order-2", 1));
    go_on(run.as_mut(), MINUTE).await;
    check(&only(&health), ConsumerState::Behind, true);
    go_on(run.as_mut(), MINUTE + Duration::from_secs(1)).await;
    check(&only(&health), ConsumerState::Behind, false);
    source.tell(StreamPosition::behind(0));
    check(&only(&health), ConsumerState::WaitingForEvents, true);
}

/// The moment between the arrival of an event and its delivery is none without progress.
#[tokio::test(start_paused = true)]
async fn an_event_that_comes_after_a_long_wait_finds_a_healthy_consumer() {
    let health = Health::new();
    let source = Tells::new(1, StreamPosition::behind(0));
    let mut spec = Spec::new(source.clone(), MemoryCursors::new(), done("billing")).health(&health).boxed();
    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), MINUTE * 60).await;
    source.tell(StreamPosition::behind(1));
    check(&only(&health), ConsumerState::Behind, true);
    source.tell(StreamPosition::behind(1).blocked(Blocked::new(1, Duration::ZERO)));
    check(&only(&health), ConsumerState::Blocked, true);
}

/// What a timer of the consumer does is no progress of its stream.
#[tokio::test(start_paused = true)]
async fn timers_do_not_hide_that_a_stream_is_stuck() {
    for position in [StreamPosition::behind(1), StreamPosition::behind(1).blocked(Blocked::new(1, 5 * MINUTE))] {
        let health = Health::new();
        let ticks = ScriptedTimer { hangs: false };
        let mut spec = Spec::new(Tells::new(1, position), MemoryCursors::new(), ticks).health(&health).boxed();
        let mut run = pin!(run(&mut spec));
        go_on(run.as_mut(), Duration::from_millis(1_500)).await;
        assert!(health.is_healthy());
        go_on(run.as_mut(), 2 * MINUTE).await;
        assert!(!health.is_healthy(), "{}", health.report());
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_handled_after_a_long_wait_has_time() {
    let health = Health::new();
    let events = filled(1);
    let consumer = consumer_fn("billing", |event: Event| async move {
        if event.id().as_i64() == Some(2) {
            sleep(MINUTE).await;
        }
        Ok(())
    });
    let mut spec = Spec::new(events.clone(), MemoryCursors::new(), consumer).health(&health).boxed();
    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), MINUTE * 60).await;
    events.append(NewEvent::new("order-2", 1));
    go_on(run.as_mut(), MINUTE / 2).await;
    check(&only(&health), ConsumerState::Running, true);
}

#[tokio::test(start_paused = true)]
async fn a_gap_tells_who_holds_it() {
    let health = Health::new();
    let source = Tells::new(1, StreamPosition::behind(0));
    let mut spec = Spec::new(source.clone(), MemoryCursors::new(), done("billing")).health(&health).boxed();
    let mut run = pin!(run(&mut spec));
    go_on(run.as_mut(), 2 * MINUTE).await;
    let blocked = |lasted| Blocked::new(1, lasted).by(["session 7 (import)".to_owned()]);
    source.tell(StreamPosition::behind(3).blocked(blocked(MINUTE)));
    let seen = only(&health);
    check(&seen, ConsumerState::Blocked, true);
    source.tell(StreamPosition::behind(3).blocked(blocked(2 * MINUTE)));
    let seen = only(&health);
    check(&seen, ConsumerState::Blocked, false);
    assert_eq!(seen.problem.unwrap(), "ids after 1 have been missing for 120 s, held by session 7 (import)");
}

#[tokio::test(start_paused = true)]
async fn the_source_is_let_go_of_when_the_run_ends() {
    let health = Health::new();
    let source = Tells::new(1, StreamPosition::behind(5));
    let position = Arc::downgrade(&source.position);
    let mut spec = Spec::new(source, MemoryCursors::new(), done("billing")).to_head().health(&health);
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());
    drop(spec);
    assert!(position.upgrade().is_none());
    assert_eq!(only(&health).behind, None);
}

/// It never returns to the runtime, so that nothing but the stores of each event can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_that_blocks_its_thread_is_seen() {
    let health = Health::new();
    let (entered, in_handler) = oneshot::channel::<()>();
    let (leave, left) = std::sync::mpsc::channel::<()>();
    let (mut entered, left) = (Some(entered), Arc::new(Mutex::new(left)));
    let consumer = consumer_fn("billing", move |event: Event| {
        if event.id().as_i64() == Some(2) {
            entered.take().map(|entered| entered.send(()));
            left.lock().unwrap().recv().ok();
        }
        ready(Ok(()))
    });
    let mut spec = Spec::new(filled(2), MemoryCursors::new(), consumer).health(&health).to_head();
    let running = tokio::spawn(async move { run(&mut spec).await });
    in_handler.await.unwrap();
    let seen = only(&health.clone().patience(Duration::ZERO));
    check(&seen, ConsumerState::Running, false);
    assert_eq!((seen.last_event_id, seen.cursor), (Some(2.into()), Some(1.into())));
    leave.send(()).unwrap();
    assert!(running.await.unwrap().unwrap_err().is_head_reached());
    check(&only(&health), ConsumerState::Stopped, true);
}

#[tokio::test(start_paused = true)]
async fn cursors_that_are_text_are_seen_too() {
    let health = Health::new();
    let consumer = ScriptedConsumer::new("billing").at(0, Progress::Pending);
    let source = |_options: StreamOptions| async {
        let parts = reflex_core::EventParts {
            id: "1526919030474-55".into(),
            event_type: 1.into(),
            foreign_id: "order-12",
            timestamp: chrono::Utc::now(),
            metadata: b"",
            trace: b"",
        };
        let first = Event::from(parts);
        Ok(futures_util::StreamExt::chain(futures_util::stream::iter([Ok(first)]), futures_util::stream::pending()))
    };
    let mut spec = Spec::new(source, MemoryCursors::new(), consumer).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    assert_eq!(seen.last_event_id, Some("1526919030474-55".into()));
    check(&seen, ConsumerState::WaitingForEvents, false);
}

#[tokio::test(start_paused = true)]
async fn a_spec_takes_over_the_entry_of_one_that_is_gone() {
    let health = Health::new();
    for _ in 0..2 {
        let spec = Spec::new(filled(1), MemoryCursors::new(), done("billing")).health(&health).boxed();
        assert!(run(&mut spec.to_head()).await.unwrap_err().is_head_reached());
    }
    assert_eq!(only(&health).runs, 2);
    let two = [(); 2].map(|()| Spec::new(filled(1), MemoryCursors::new(), done("billing")).health(&health));
    assert_eq!(health.consumers().len(), 2);
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn is_read_by_machines() {
    let (health, scrape) = (Health::new(), Scrape::new());
    let source = Tells::new(1, StreamPosition::behind(2).blocked(Blocked::new(1, 2 * MINUTE)));
    let mut spec = Spec::new(source, MemoryCursors::new(), done("billing")).health(&health).boxed();
    health.register(&scrape.registry).unwrap();
    assert!(health.register(&scrape.registry).is_err());
    let look = async {
        sleep(2 * MINUTE).await;
        let json = serde_json::to_value(health.report()).unwrap();
        let value = |series: &str| scrape.value(series);
        let label = "consumer_name=\"billing\"";
        let values = [
            value(&format!("reflex_consumer_healthy{{{label}}}")),
            value(&format!("reflex_consumer_state{{{label},state=\"blocked\"}}")),
            value(&format!("reflex_consumer_state{{{label},state=\"failing\"}}")),
        ];
        (json, values, value(&format!("reflex_consumer_stalled_seconds{{{label}}}")))
    };
    let (_, (json, values, stalled)) = join(run_until(&mut spec, sleep(3 * MINUTE)), look).await;
    assert_eq!(values, [Some(0.0), Some(1.0), Some(0.0)]);
    assert!(stalled.unwrap() > 119.0, "{stalled:?}");
    assert_eq!(json["healthy"], false);
    let consumer = &json["consumers"][0];
    assert_eq!((&consumer["state"], &consumer["cursor"]), (&"blocked".into(), &"1".into()), "{consumer}");
    assert_eq!(consumer["blocked"], serde_json::json!({"after": "1", "seconds": 120.0, "by": []}));
    assert!(consumer["since"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn machines_see_the_worst_of_one_name() {
    let (health, scrape) = (Health::new(), Scrape::new());
    let fails = ScriptedConsumer::new("billing").at(0, Step::fail("no"));
    let mut fails = Spec::new(filled(1), MemoryCursors::new(), fails).health(&health);
    let mut ends = Spec::new(filled(1), MemoryCursors::new(), done("billing")).health(&health).to_head();
    assert_eq!(run(&mut fails).await.unwrap_err().event_id(), Some(&1.into()));
    assert!(run(&mut ends).await.unwrap_err().is_head_reached());
    health.register(&scrape.registry).unwrap();
    let state = |state| scrape.value(&format!("reflex_consumer_state{{consumer_name=\"billing\",state=\"{state}\"}}"));
    assert_eq!(scrape.value("reflex_consumer_healthy{consumer_name=\"billing\"}"), Some(0.0));
    assert_eq!(["failing", "stopped", "running"].map(state), [Some(1.0), Some(1.0), Some(0.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_seen() {
    let health = Health::new();
    let mut spec = Spec::new(filled(1), NeverStores, done("billing")).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    check(&seen, ConsumerState::Running, false);
    assert_eq!(seen.last_event_id, Some(1.into()));
}

struct NeverStores;

impl CursorStore for NeverStores {
    async fn get(&self, _consumer: &str) -> Result<Option<Cursor>> {
        Ok(None)
    }

    async fn set(&self, _consumer: &str, _cursor: &Cursor) -> Result<()> {
        pending().await
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// A timer of the consumer that never returns, though no event is in hand.
#[tokio::test(start_paused = true)]
async fn an_advance_that_hangs_is_seen() {
    let health = Health::new();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), ScriptedTimer { hangs: true }).health(&health).boxed();
    let seen = seen_after(2 * MINUTE, &health, &mut spec).await;
    check(&seen, ConsumerState::Running, false);
    assert_eq!(seen.cursor, Some(1.into()));
}

/// Has something to do every second, which takes no time or hangs.
struct ScriptedTimer {
    hangs: bool,
}

impl reflex_core::Consumer for ScriptedTimer {
    fn name(&self) -> &str {
        "billing"
    }

    async fn consume(&mut self, _event: Event) -> Result<Progress, HandlerError> {
        Ok(Progress::Done)
    }

    async fn ready(&mut self) {
        sleep(Duration::from_secs(1)).await;
    }

    async fn advance(&mut self) -> Result<Progress, HandlerError> {
        if self.hangs { pending().await } else { Ok(Progress::Pending) }
    }
}
