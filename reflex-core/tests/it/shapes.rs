//! Whatever users write compiles, spawns and boxes.

use std::future::ready;

use reflex_core::{
    BoxConsumer, BoxSpec, BufferedCursors, Consumer, Event, HandlerError, MemoryCursors, Monitoring, Progress, Spec,
    consumer_fn, run, run_until,
};
use reflex_testing::{Call, ScriptedConsumer};

use crate::support::{filled, stored, yielding_source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_of_a_closure_is_spawned() {
    let cursors = MemoryCursors::new();
    let prefix = String::from("order-");
    let consumer = consumer_fn("billing", move |event: Event| {
        let prefix = prefix.clone();
        async move {
            tokio::task::yield_now().await;
            let number: i64 = event.foreign_id().strip_prefix(&prefix).unwrap_or_default().parse()?;
            assert_eq!(number, event.id_as_i64()?);
            Ok(())
        }
    });
    let mut spec = Spec::new(filled(3), cursors.clone(), consumer).to_head();
    let ended = tokio::spawn(async move { run(&mut spec).await }).await.unwrap();
    assert!(ended.unwrap_err().is_head_reached());
    assert_eq!(stored(&cursors, "billing"), Some(3));
}

#[tokio::test]
async fn specs_of_different_kinds_go_into_one_collection() {
    let cursors = MemoryCursors::new();
    let specs: Vec<BoxSpec> = vec![
        Spec::new(filled(1), cursors.clone(), consumer_fn("a", |_event| async { Ok(()) })).to_head().boxed(),
        Spec::new(yielding_source(filled(2)), BufferedCursors::new(cursors.clone()), ScriptedConsumer::new("b"))
            .to_head()
            .boxed(),
        Spec::new(filled(3), cursors.clone(), Counting(0)).to_head().boxed(),
    ];
    assert_eq!(specs.iter().map(|spec| spec.name()).collect::<Vec<_>>(), ["a", "b", "counting"]);
    let tasks = specs.into_iter().map(|mut spec| tokio::spawn(async move { run(&mut spec).await }));
    for ended in futures_util::future::join_all(tasks).await {
        assert!(ended.unwrap().unwrap_err().is_head_reached());
    }
    assert_eq!(cursors.all().into_values().collect::<Vec<_>>(), [1.into(), 2.into(), 3.into()]);
}

struct Counting(usize);

impl Consumer for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn consume(&mut self, _event: Event) -> Result<Progress, HandlerError> {
        self.0 += 1;
        Ok(Progress::Done)
    }
}

#[tokio::test]
async fn a_boxed_consumer_passes_every_call_on() {
    let mut monitoring = Monitoring::default();
    monitoring.lag_alert = None;
    let consumer = ScriptedConsumer::new("batch").monitored(monitoring.clone());
    let calls = consumer.calls();
    let boxed = BoxConsumer::new(consumer);
    assert_eq!(boxed.monitoring(), monitoring);
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), boxed);
    let shutdown = async {
        calls.await_consumed(1, crate::support::DEADLINE).await;
        calls.wake();
        let advanced = || ready(calls.count(&Call::Advance) == 1);
        reflex_testing::eventually("the advance", crate::support::DEADLINE, advanced).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(calls.all(), [Call::Reset, Call::Consume(1.into()), Call::Advance, Call::Drain, Call::Stop]);
}

#[tokio::test]
async fn a_consumer_of_something_else() {
    struct Sum(u64);
    impl Consumer<Vec<u64>> for Sum {
        fn name(&self) -> &str {
            "sum"
        }
        async fn consume(&mut self, numbers: Vec<u64>) -> Result<Progress, HandlerError> {
            self.0 += numbers.iter().sum::<u64>();
            Ok(Progress::Done)
        }
    }
    let mut consumer = BoxConsumer::new(Sum(0));
    assert_eq!(consumer.consume(vec![1, 2]).await.unwrap(), Progress::Done);
}
