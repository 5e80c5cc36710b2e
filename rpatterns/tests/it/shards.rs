//! Shards: who gets what, and the cursors of those who skip.

use std::{collections::BTreeMap, time::Duration};

use reflex_core::{
    Consumer, Event, HandlerError, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run, run_until,
};
use reflex_testing::{Call, ScriptedConsumer};
use rpatterns::{Key, batch, batch_by_len, shard, shard_specs, shards};
use tokio::time::{sleep, timeout};

use crate::support::{DEADLINE, Notes, chain, filled, stored};

const PERIOD: Duration = Duration::from_secs(1);

fn noting(m: usize, notes: &Notes<(i64, usize)>) -> impl Consumer + use<> {
    let notes = notes.clone();
    consumer_fn("ship", move |event: Event| {
        let notes = notes.clone();
        async move {
            notes.add((event.id_as_i64()?, m));
            Ok(())
        }
    })
}

/// Runs all shards to the head; returns the owner of each event.
async fn owners(events: &MemoryEvents, n: usize, key: Key) -> BTreeMap<i64, usize> {
    let (cursors, notes) = (MemoryCursors::new(), Notes::new());
    for spec in shard_specs(n, key, events, &cursors, |m| noting(m, &notes)).unwrap() {
        let name = spec.name().to_owned();
        assert!(run(&mut spec.to_head()).await.unwrap_err().is_head_reached());
        assert_eq!(
            stored(&cursors, &name),
            Some(500),
            "{name} has a cursor of its own, and passes those of the others"
        );
    }
    let names: Vec<_> = (1..=n).map(|m| format!("ship_{m}_of_{n}")).collect();
    assert_eq!(cursors.all().into_keys().collect::<Vec<_>>(), names);
    let (seen, owners) = (notes.len(), BTreeMap::from_iter(notes.all()));
    assert_eq!((seen, owners.len()), (500, 500), "one owner each");
    owners
}

#[tokio::test]
async fn each_event_has_one_owner_and_equal_keys_have_the_same() {
    let events = MemoryEvents::new();
    for number in 0..500 {
        events.append(NewEvent::new(number % 50, 1 + number % 3));
    }
    let by_id = owners(&events, 4, Key::default()).await;
    assert!((1..=450).any(|id| by_id[&id] != by_id[&(id + 50)]));
    let by_foreign_id = owners(&events, 4, Key::by_foreign_id()).await;
    assert!((1..=450).all(|id| by_foreign_id[&id] == by_foreign_id[&(id + 50)]));
    let by_type = owners(&events, 4, Key::by_type()).await;
    assert!((1..=497).all(|id| by_type[&id] == by_type[&(id + 3)]));
    let by_function = owners(&events, 4, Key::by(|event| Ok(event.event_type().to_string()))).await;
    assert_eq!(by_function, by_type);
}

/// `hash/fnv.New32` of "a" is 0x050c5d7e, and of "foobar" 0x31f0b262: modulo 5 that is 1 and 0.
#[tokio::test]
async fn a_shard_has_the_events_that_it_has_in_go() {
    let events = MemoryEvents::new();
    events.append(NewEvent::new("a", 1));
    events.append(NewEvent::new("foobar", 1));
    let notes = Notes::new();
    for spec in shard_specs(5, Key::by_foreign_id(), &events, &MemoryCursors::new(), |m| noting(m, &notes)).unwrap() {
        assert!(run(&mut spec.to_head()).await.unwrap_err().is_head_reached());
    }
    assert_eq!(notes.all(), [(2, 1), (1, 2)]);
}

/// Shard 2 of 2 has the events with even ids, as long as they have one digit.
#[tokio::test(start_paused = true)]
async fn skipped_events_do_not_move_the_cursor_over_a_batch_in_hand() {
    let (notes, cursors) = (Notes::new(), MemoryCursors::new());
    let noted = notes.clone();
    let index = consumer_fn("index", move |batch: Vec<Event>| {
        noted.add(batch.iter().filter_map(|event| event.id().as_i64()).collect::<Vec<_>>());
        std::future::ready(Ok(()))
    });
    let consumer = shard(2, 2, Key::by_event_id(), batch(100, PERIOD, index)).unwrap();
    let mut spec = Spec::new(filled(5), cursors.clone(), consumer);
    assert!(timeout(PERIOD / 2, run(&mut spec)).await.is_err());
    assert_eq!(stored(&cursors, "index_2_of_2"), Some(1), "event 2 is not done");
    let shutdown = async {
        sleep(PERIOD * 3 / 2).await;
        assert_eq!((stored(&cursors, "index_2_of_2"), notes.all()), (Some(5), vec![vec![2, 4]]));
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_drain_moves_the_cursor_over_what_was_skipped_behind() {
    for m in 1..=2 {
        let cursors = MemoryCursors::new();
        let inner = consumer_fn("index", |_batch: Vec<Event>| async { Ok(()) });
        let consumer = shard(m, 2, Key::by_event_id(), batch_by_len(100, inner)).unwrap();
        let mut spec = Spec::new(filled(9), cursors.clone(), consumer).to_head();
        assert!(run(&mut spec).await.unwrap_err().is_head_reached());
        assert_eq!(cursors.all().into_values().collect::<Vec<_>>(), [9.into()]);
    }
}

#[tokio::test]
async fn each_call_reaches_the_consumer_inside() {
    let inner = ScriptedConsumer::new("ship");
    let calls = inner.calls();
    let mut spec = Spec::new(filled(1), MemoryCursors::new(), shard(1, 1, Key::default(), inner).unwrap());
    let shutdown = async {
        calls.await_consumed(1, DEADLINE).await;
        calls.wake();
        let advanced = || std::future::ready(calls.count(&Call::Advance) == 1);
        reflex_testing::eventually("the advance", DEADLINE, advanced).await;
    };
    assert!(run_until(&mut spec, shutdown).await.unwrap_err().is_stopped());
    assert_eq!(calls.all(), [Call::Reset, Call::Consume(1.into()), Call::Advance, Call::Drain, Call::Stop]);
}

#[tokio::test]
async fn names_may_be_chosen() {
    let made = shards(2, Key::default(), |m| ScriptedConsumer::new(format!("ship-{m}"))).unwrap();
    assert_eq!(made.iter().map(Consumer::name).collect::<Vec<_>>(), ["ship-1_1_of_2", "ship-2_2_of_2"]);
    let named = shard(2, 2, Key::default(), ScriptedConsumer::new("ship")).unwrap().named("ship-b");
    assert_eq!(named.name(), "ship-b");
}

#[tokio::test]
async fn shards_that_are_none_are_refused() {
    let message = |m, n| shard(m, n, Key::default(), ScriptedConsumer::new("ship")).unwrap_err().to_string();
    assert_eq!(message(1, 0), "divide consumer `ship` into 0 shards: make it 1 or more");
    assert_eq!(message(0, 4), "make consumer `ship` shard 0 of 4: shards count from 1 to 4");
    assert_eq!(message(5, 4), "make consumer `ship` shard 5 of 4: shards count from 1 to 4");
    let none = shards(0, Key::default(), |_| ScriptedConsumer::new("ship"));
    assert!(none.unwrap_err().is_invalid());
}

#[tokio::test]
async fn a_key_that_cannot_be_told_ends_the_run() {
    let key = Key::by::<String>(|_| Err(HandlerError::new("no customer")));
    let consumer = shard(1, 2, key, ScriptedConsumer::new("ship")).unwrap();
    let error = run(&mut Spec::new(filled(1), MemoryCursors::new(), consumer)).await.unwrap_err();
    assert!(chain(&error).ends_with("at event 1 (foreign id `order-1`): no customer"), "{error}");
}
