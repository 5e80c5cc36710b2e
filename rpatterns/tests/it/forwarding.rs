//! A pattern around a consumer answers for it in everything that is not its own matter.

use std::time::Duration;

use reflex_core::{Consumer, MemoryDeadLetters, MemoryEvents, Monitoring, NewEvent, Progress};
use reflex_testing::{Call, ScriptedConsumer};
use rpatterns::{best_effort, dead_letter, rate_limit, retry};

async fn check<C: Consumer>(around: impl FnOnce(ScriptedConsumer) -> C) {
    let mut monitoring = Monitoring::default();
    monitoring.lag_alert = Some(Duration::from_secs(7));
    let inner = ScriptedConsumer::new("billing")
        .monitored(monitoring.clone())
        .at(0, Progress::Skipped)
        .on_advance(Progress::UpTo(1.into()))
        .on_drain(Progress::UpTo(2.into()));
    let calls = inner.calls();
    let mut consumer = around(inner);

    assert_eq!(consumer.name(), "billing");
    assert_eq!(consumer.monitoring(), monitoring);
    consumer.reset().await.unwrap();
    let event = MemoryEvents::new().append(NewEvent::new("order-1", 1));
    assert_eq!(consumer.consume(event).await.unwrap(), Progress::Skipped);
    calls.wake();
    while calls.count(&Call::Advance) == 0 {
        consumer.ready().await;
        let progress = consumer.advance().await.unwrap();
        let own_matter = calls.count(&Call::Advance) == 0;
        assert!(own_matter || progress == Progress::UpTo(1.into()));
    }
    assert_eq!(consumer.drain().await.unwrap(), Progress::UpTo(2.into()));
    consumer.stop().await.unwrap();
    let expected = [Call::Reset, Call::Consume(1.into()), Call::Advance, Call::Drain, Call::Stop];
    assert_eq!(calls.all(), expected);
}

#[tokio::test]
async fn retry_forwards() {
    check(|inner| retry([Duration::from_secs(1)], inner)).await;
}

#[tokio::test]
async fn best_effort_forwards() {
    check(best_effort).await;
}

#[tokio::test]
async fn dead_letter_forwards() {
    check(|inner| dead_letter(MemoryDeadLetters::new(), inner)).await;
}

#[tokio::test]
async fn rate_limit_forwards() {
    check(|inner| rate_limit(1, Duration::from_secs(1), inner)).await;
}
