//! Every metric of a consumer, by its name and label.

use std::{future::ready, time::Duration};

use chrono::{TimeDelta, Utc};
use futures_util::future::join;
use reflex_core::{Error, Event, MemoryCursors, MemoryEvents, NewEvent, Progress, Spec, consumer_fn, run, run_until};
use reflex_testing::{ScriptedConsumer, Step, eventually, poll_times};
use tokio::time::sleep;

use crate::support::{DEADLINE, Scrape, endless, filled};

const LAG: &str = "reflex_consumer_lag_seconds";
const LAG_ALERT: &str = "reflex_consumer_lag_alert";
const ACTIVE: &str = "reflex_consumer_active";
const ERRORS: &str = "reflex_consumer_error_count";
const DEAD_LETTERED: &str = "reflex_consumer_dead_lettered_events_count";

/// A table with one event of this age.
fn aged(age: TimeDelta) -> MemoryEvents {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("order-12", 1).timestamp(Utc::now() - age));
    events
}

#[tokio::test]
async fn a_run_that_fails_keeps_its_lag_and_counts_an_error() {
    let scrape = Scrape::new();
    let consumer = ScriptedConsumer::new("billing").at(0, Step::fail("no"));
    let mut spec =
        Spec::new(aged(TimeDelta::hours(1)), MemoryCursors::new(), consumer).metrics(&scrape.metrics).to_head();
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    let lag = scrape.consumer(LAG, "billing").unwrap();
    assert!((3_600.0..3_700.0).contains(&lag), "{lag}");
    assert_eq!(scrape.consumer(LAG_ALERT, "billing"), Some(1.0));
    assert_eq!(scrape.consumer(ACTIVE, "billing"), Some(1.0));
    assert_eq!(scrape.consumer(ERRORS, "billing"), Some(1.0));
    assert_eq!(scrape.consumer("reflex_consumer_latency_seconds_count", "billing"), Some(1.0));
    assert_eq!(scrape.consumer("reflex_consumer_event_age_seconds_count", "billing"), Some(1.0));
    assert_eq!(scrape.consumer(DEAD_LETTERED, "billing"), Some(0.0));
    scrape.metrics.dead_lettered("billing").inc();
    assert_eq!(scrape.consumer(DEAD_LETTERED, "billing"), Some(1.0));
    let bucket = |le| {
        scrape.value(&format!("reflex_consumer_event_age_seconds_bucket{{consumer_name=\"billing\",le=\"{le}\"}}"))
    };
    assert_eq!((bucket("1000"), bucket("10000")), (Some(0.0), Some(1.0)));
}

#[tokio::test]
async fn a_panic_counts_as_an_error() {
    let scrape = Scrape::new();
    let consumer = consumer_fn("billing", |_event: Event| async { panic!("a bug") });
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
    assert!(tokio::spawn(async move { run(&mut spec).await }).await.unwrap_err().is_panic());
    assert_eq!(scrape.consumer(ERRORS, "billing"), Some(1.0));
}

#[tokio::test]
async fn every_event_is_counted_however_quick() {
    let scrape = Scrape::new();
    for events in [1, 7, 8, 9, 100] {
        let name = format!("of-{events}");
        let spec = Spec::new(filled(events), MemoryCursors::new(), ScriptedConsumer::new(&name));
        assert!(run(&mut spec.metrics(&scrape.metrics).to_head()).await.unwrap_err().is_head_reached());
        let count = scrape.consumer("reflex_consumer_latency_seconds_count", &name);
        assert_eq!(count, Some(events as f64));
    }
}

#[tokio::test]
async fn a_run_that_fails_shows_its_last_event() {
    let scrape = Scrape::new();
    let events = filled(1);
    events.append(NewEvent::new("order-12", 1).timestamp(Utc::now() - TimeDelta::hours(1)));
    let fails = ScriptedConsumer::new("fails").at(1, Step::fail("no"));
    let mut spec = Spec::new(events, MemoryCursors::new(), fails).metrics(&scrape.metrics);
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));
    assert_eq!(scrape.consumer(LAG_ALERT, "fails"), Some(1.0));
    assert_eq!(scrape.consumer(ACTIVE, "fails"), Some(1.0));
    assert_eq!(scrape.consumer("reflex_consumer_latency_seconds_count", "fails"), Some(2.0));
}

#[tokio::test]
async fn a_run_that_ends_as_intended_leaves_nothing_that_alerts() {
    let scrape = Scrape::new();
    let old = || aged(TimeDelta::hours(1));
    let mut spec =
        Spec::new(old(), MemoryCursors::new(), ScriptedConsumer::new("a")).metrics(&scrape.metrics).to_head();
    assert!(run(&mut spec).await.unwrap_err().is_head_reached());

    let consumer = ScriptedConsumer::new("b");
    let calls = consumer.calls();
    let mut spec = Spec::new(old(), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
    assert!(run_until(&mut spec, calls.await_consumed(1, DEADLINE)).await.unwrap_err().is_stopped());

    let mut spec = Spec::new(old(), MemoryCursors::new(), ScriptedConsumer::new("c")).metrics(&scrape.metrics);
    assert!(poll_times(1, run(&mut spec)).await.is_none(), "it is dropped");

    for consumer in ["a", "b", "c"] {
        for alerts in [LAG, LAG_ALERT, ACTIVE] {
            assert_eq!(scrape.consumer(alerts, consumer), None, "{consumer} {alerts}");
        }
        assert_eq!(scrape.consumer(ERRORS, consumer), Some(0.0), "{consumer}");
        assert_eq!(scrape.consumer("reflex_consumer_event_age_seconds_count", consumer), Some(1.0), "{consumer}");
    }
}

#[tokio::test]
async fn expected_errors_are_not_counted() {
    let scrape = Scrape::new();
    for error in [Error::stopped, Error::cancelled, Error::deadline_exceeded] {
        let consumer = consumer_fn("billing", move |_event| async move { Err(error().into()) });
        let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
        assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    }
    assert_eq!(scrape.consumer(ERRORS, "billing"), Some(0.0));
}

#[tokio::test]
async fn the_alert_has_a_threshold_and_can_be_off() {
    let scrape = Scrape::new();
    let ten_minutes = Duration::from_secs(600);
    let fails = |_event| async { Err(reflex_core::HandlerError::new("no")) };
    let consumers = [
        consumer_fn("default", fails),
        consumer_fn("low", fails).lag_alert(ten_minutes),
        consumer_fn("off", fails).no_lag_alert(),
    ];
    for consumer in consumers {
        let mut spec = Spec::new(aged(TimeDelta::minutes(20)), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
        assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    }
    assert_eq!(scrape.consumer(LAG_ALERT, "default"), Some(0.0));
    assert_eq!(scrape.consumer(LAG_ALERT, "low"), Some(1.0));
    assert_eq!(scrape.consumer(LAG_ALERT, "off"), None);
}

#[tokio::test]
async fn an_event_from_the_future_has_no_lag_and_is_counted() {
    let scrape = Scrape::new();
    let consumer = ScriptedConsumer::new("billing").at(0, Step::fail("no"));
    let mut spec = Spec::new(aged(TimeDelta::hours(-1)), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
    assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    assert_eq!(scrape.consumer(LAG, "billing"), Some(0.0));
    assert_eq!(scrape.consumer("reflex_consumer_future_events_count", "billing"), Some(1.0));
}

#[tokio::test]
async fn active_falls_to_zero_after_its_time_and_can_be_off() {
    let scrape = Scrape::new();
    let fails = |_event| async { Err(reflex_core::HandlerError::new("no")) };
    let consumers = [
        consumer_fn("short", fails).activity_ttl(Duration::from_millis(50)),
        consumer_fn("default", fails),
        consumer_fn("off", fails).no_activity_ttl(),
    ];
    for consumer in consumers {
        let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
        assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&1.into()));
    }
    eventually("an inactive consumer", DEADLINE, || ready(scrape.consumer(ACTIVE, "short") == Some(0.0))).await;
    assert_eq!(scrape.consumer(ACTIVE, "default"), Some(1.0));
    assert_eq!(scrape.consumer(ACTIVE, "off"), None);
}

#[tokio::test]
async fn a_consumer_without_events_is_there_and_has_its_time() {
    let scrape = Scrape::new();
    let mut spec =
        Spec::new(filled(0), MemoryCursors::new(), ScriptedConsumer::new("billing")).metrics(&scrape.metrics);
    let look = async {
        eventually("the series", DEADLINE, || ready(scrape.consumer(LAG, "billing").is_some())).await;
        [ERRORS, LAG_ALERT, ACTIVE].map(|name| scrape.consumer(name, "billing"))
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let look = async {
        let found = look.await;
        stop.send(()).unwrap();
        found
    };
    let (_, found) = join(run_until(&mut spec, async { stopped.await.unwrap() }), look).await;
    assert_eq!(found, [Some(0.0), Some(0.0), Some(1.0)]);
}

/// Waits until `count` of a histogram is in the registry, while the run goes on.
async fn shown_while_running(scrape: &Scrape, name: &str, consumer: &str) {
    let shown = || ready(scrape.consumer(name, consumer).is_some_and(|value| value > 0.0));
    eventually(name, DEADLINE, shown).await;
}

#[tokio::test]
async fn metrics_are_shown_while_events_keep_coming() {
    let scrape = Scrape::new();
    let consumer = consumer_fn("billing", |_event| async { Ok(()) });
    let mut spec = Spec::new(endless, MemoryCursors::new(), consumer).metrics(&scrape.metrics);
    let shown = shown_while_running(&scrape, "reflex_consumer_latency_seconds_count", "billing");
    assert!(run_until(&mut spec, shown).await.unwrap_err().is_stopped());
}

#[tokio::test]
async fn metrics_are_shown_while_idle_though_nothing_is_done_yet() {
    let scrape = Scrape::new();
    let consumer = ScriptedConsumer::new("batch").at(0, Progress::Pending);
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), consumer).metrics(&scrape.metrics);
    let shown = shown_while_running(&scrape, "reflex_consumer_latency_seconds_count", "batch");
    assert!(run_until(&mut spec, shown).await.unwrap_err().is_stopped());
}

/// A stuck consumer shows the lag of the event that it is stuck on.
#[tokio::test]
async fn metrics_are_shown_while_a_handler_hangs() {
    for hangs_at in [0, 1] {
        let scrape = Scrape::new();
        let events = MemoryEvents::new();
        for _ in 0..=hangs_at {
            events.append(NewEvent::new("order-12", 1).timestamp(Utc::now() - TimeDelta::hours(1)));
        }
        let consumer = consumer_fn("billing", |event: reflex_core::Event| async move {
            if event.id_as_i64()? <= hangs_at {
                sleep(Duration::from_millis(150)).await;
                return Ok(());
            }
            std::future::pending().await
        });
        let mut spec = Spec::new(events, MemoryCursors::new(), consumer).metrics(&scrape.metrics);
        let alert = || ready(scrape.consumer(LAG_ALERT, "billing") == Some(1.0));
        let seen = eventually("the alert", DEADLINE, alert);
        tokio::select! {
            ended = run(&mut spec) => panic!("it ended: {ended:?}"),
            () = seen => {}
        }
    }
}
