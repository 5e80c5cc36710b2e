use std::collections::BTreeSet;

use futures_util::future::{join_all, try_join, try_join_all};
use reflex_core::{DeadLetterStore, HandlerError, Selection};
use tokio::task::yield_now;

use super::{
    DeadLetterHarness,
    bench::{BOUND, Bench, event, park, put},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal};

const WORKERS: i64 = 6;

async fn stores<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome<Vec<H::Store>> {
    try_join_all((0..WORKERS).map(|_| bench.store())).await
}

/// All of them put all events aside, each with an error of its own.
pub(super) async fn puts_of_one_event<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let stores = stores(bench).await?;
    let puts = stores.iter().enumerate().map(|(worker, store)| async move {
        for id in 1..=20 {
            put(store, id, "order-1", &format!("error of {worker}")).await?;
        }
        Outcome::Ok(())
    });
    try_join_all(puts).await?;
    let mut open = bench.open().await?;
    open.sort_by_key(|id| id.parse::<i64>().unwrap_or(0));
    ensure_equal("the open letters", open, (1..=20).map(|id| id.to_string()).collect())
}

pub(super) async fn puts_at_the_bound<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let stores = stores(bench).await?;
    let free = WORKERS / 2;
    for id in 1..=BOUND as i64 - free {
        put(&stores[0], id, &format!("order-{id}"), "no").await?;
    }
    let puts = join_all(stores.iter().zip(10_000..).map(|(store, id)| put(store, id, "order-x", "no"))).await;
    let accepted = puts.iter().filter(|result| result.is_ok()).count();
    ensure_equal("how many were accepted", accepted as i64, free)?;
    ensure_equal("the number of open letters", bench.open().await?.len(), BOUND)
}

/// Each letter is claimed by one of them, and the letters of one foreign id one after the other.
pub(super) async fn claims<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let stores = stores(bench).await?;
    for key in 0..5 {
        put(&stores[0], key, &format!("order-{key}"), "no").await?;
    }
    let behind: Vec<_> = (5..40).map(|id| (id, format!("order-{}", id % 5))).collect();
    let behind: Vec<_> = behind.iter().map(|(id, key)| (*id, key.as_str())).collect();
    park(&stores[0], &behind).await?;
    bench.request(Selection::All).await?;
    let redriven = join_all(stores.iter().map(|store| async move {
        let mut redriven = Vec::new();
        while let Some(letter) = store.claim("billing").await? {
            yield_now().await;
            redriven.push(letter.event.id().as_i64().unwrap_or(-1));
            store.settle(&letter, Ok(())).await?;
        }
        Outcome::Ok(redriven)
    }));
    let redriven = redriven.await.into_iter().collect::<Outcome<Vec<_>>>()?.concat();
    let distinct: BTreeSet<_> = redriven.iter().collect();
    ensure(distinct.len() == redriven.len(), || format!("a letter was claimed twice: {redriven:?}"))?;
    ensure_equal("how many were redriven", redriven.len(), 40)?;
    bench.ensure_open(&[]).await
}

/// One process consumes the events of a foreign id, one after the other, another one redrives what is put aside. Whatever
/// comes first: each event is either consumed or put aside, and none is consumed while an earlier one is open.
pub(super) async fn parking_beside_redriving<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    const EVENTS: i64 = 40;
    let (consumer, redriver) = (bench.store().await?, bench.store().await?);
    let consumed = std::sync::Mutex::new(Vec::new());
    let note = |id| consumed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(id);
    let done = std::sync::atomic::AtomicBool::new(false);
    let consume = async {
        for id in 1..=EVENTS {
            let parked = consumer.park_behind("billing", &[event(id, "order-1")]).await?[0];
            match parked {
                true => {}
                false if id % 7 == 0 => {
                    consumer.put("billing", &event(id, "order-1"), &HandlerError::new("no")).await?
                }
                false => note(id),
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        Outcome::Ok(())
    };
    let redrive = async {
        loop {
            let last_round = done.load(std::sync::atomic::Ordering::SeqCst);
            bench.request(Selection::All).await?;
            while let Some(letter) = redriver.claim("billing").await? {
                note(letter.event.id().as_i64().unwrap_or(-1));
                redriver.settle(&letter, Ok(())).await?;
            }
            if last_round && bench.open().await?.is_empty() {
                return Outcome::Ok(());
            }
            yield_now().await;
        }
    };
    try_join(consume, redrive).await?;
    let consumed = consumed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    ensure_equal("what was consumed", consumed, (1..=EVENTS).collect())
}
