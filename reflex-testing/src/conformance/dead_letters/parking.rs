use reflex_core::Selection;

use super::{
    DeadLetterHarness,
    bench::{Bench, park, put, redrive},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal};

pub(super) async fn nothing_to_park_behind<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    ensure_equal("nothing", park(&store, &[]).await?, Vec::new())?;
    ensure_equal("the answer", park(&store, &[(1, "order-1"), (2, "order-1")]).await?, vec![false, false])?;
    bench.ensure_open(&[]).await
}

pub(super) async fn park_behind<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "no").await?;
    let slice = [(2, "order-2"), (3, "order-1"), (4, "order-3"), (5, "order-1")];
    ensure_equal("the answer", park(&other, &slice).await?, vec![false, true, false, true])?;
    bench.ensure_open(&[1, 3, 5]).await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal("what is parked", open.iter().map(|letter| letter.parked).collect(), vec![false, true, true])?;
    let error = &open[1].error;
    ensure(error.contains("event 1"), || format!("the error does not name the event in front: {error}"))
}

pub(super) async fn long_slice<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-7", "no").await?;
    let keys: Vec<_> = (0..2_000).map(|key| format!("order-{key}")).collect();
    let slice: Vec<_> = keys.iter().zip(10..).map(|(key, id)| (id, key.as_str())).collect();
    let parked = park(&store, &slice).await?;
    ensure_equal("how many are put aside", parked.iter().filter(|parked| **parked).count(), 1)?;
    ensure(parked[7], || "another one is put aside".into())?;
    bench.ensure_open(&[1, 17]).await
}

pub(super) async fn parked_again<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    for _ in 0..2 {
        ensure_equal("the answer", park(&store, &[(1, "order-1"), (2, "order-1")]).await?, vec![true, true])?;
        bench.ensure_open(&[1, 2]).await?;
    }
    put(&store, 2, "order-1", "no").await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal("what is parked", open.iter().map(|letter| letter.parked).collect(), vec![false, true])
}

pub(super) async fn not_behind_what_was_redriven<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    put(&store, 2, "order-2", "no").await?;
    bench.request(Selection::Event(1.into())).await?;
    redrive(&store, 1).await?;
    bench.discard(Selection::Event(2.into())).await?;
    ensure_equal("the answer", park(&store, &[(3, "order-1"), (4, "order-2")]).await?, vec![false, false])?;
    bench.ensure_open(&[]).await
}
