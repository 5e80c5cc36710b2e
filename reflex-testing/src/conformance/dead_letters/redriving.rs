use reflex_core::{DeadLetterStore, HandlerError, Selection};

use super::{
    DeadLetterHarness,
    bench::{Bench, claim, ensure_nothing_to_claim, park, put, redrive},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal, fail, with_causes};

pub(super) async fn nothing_to_claim<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    ensure_nothing_to_claim(&store).await?;
    put(&store, 1, "order-1", "no").await?;
    ensure_nothing_to_claim(&store).await
}

pub(super) async fn only_what_is_requested<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    for id in 1..=4 {
        put(&store, id, &format!("order-{id}"), "no").await?;
    }
    for id in [3, 2] {
        bench.request(Selection::Event(id.into())).await?;
    }
    for id in [2, 3] {
        redrive(&other, id).await?;
    }
    ensure_nothing_to_claim(&store).await?;
    bench.ensure_open(&[1, 4]).await
}

pub(super) async fn selections<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    for id in 1..=6 {
        put(&store, id, &format!("order-{}", id % 2), "no").await?;
    }
    let ids = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<Vec<_>>();
    ensure_equal("the oldest", bench.request(Selection::Oldest(2)).await?, ids(&[1, 2]))?;
    ensure_equal("one", bench.request(Selection::Event(4.into())).await?, ids(&[4]))?;
    ensure_equal("none", bench.request(Selection::Event(7.into())).await?, ids(&[]))?;
    ensure_equal("none of no foreign id", bench.request(Selection::ForeignId("order".into())).await?, ids(&[]))?;
    ensure_equal("no oldest", bench.request(Selection::Oldest(0)).await?, ids(&[]))?;
    for id in [1, 2, 4] {
        redrive(&store, id).await?;
    }
    ensure_nothing_to_claim(&store).await?;
    ensure_equal("a foreign id", bench.request(Selection::ForeignId("order-1".into())).await?, ids(&[3, 5]))?;
    ensure_equal("all", bench.discard(Selection::All).await?, ids(&[3, 5, 6]))?;
    ensure_equal("all of nothing", bench.discard(Selection::All).await?, ids(&[]))
}

pub(super) async fn claims_are_exclusive<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "no").await?;
    put(&store, 2, "order-2", "no").await?;
    bench.request(Selection::All).await?;
    let first = claim(&store, 1).await?;
    let second = claim(&other, 2).await?;
    ensure_nothing_to_claim(&store).await?;
    ensure_nothing_to_claim(&other).await?;
    store.settle(&first, Ok(())).await?;
    bench.ensure_open(&[2]).await?;
    other.settle(&second, Ok(())).await?;
    bench.ensure_open(&[]).await
}

pub(super) async fn parked_events_wait<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "no").await?;
    put(&store, 2, "order-2", "no").await?;
    park(&store, &[(3, "order-1"), (4, "order-2"), (5, "order-1")]).await?;
    bench.request(Selection::All).await?;
    let (first, second) = (claim(&store, 1).await?, claim(&other, 2).await?);
    ensure_nothing_to_claim(&store).await?;
    store.settle(&first, Ok(())).await?;
    let third = claim(&other, 3).await?;
    ensure_nothing_to_claim(&store).await?;
    other.settle(&second, Ok(())).await?;
    redrive(&store, 4).await?;
    ensure_nothing_to_claim(&store).await?;
    other.settle(&third, Ok(())).await?;
    redrive(&store, 5).await?;
    bench.ensure_open(&[]).await
}

pub(super) async fn failed<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "first").await?;
    for redrives in 1..=3 {
        bench.request(Selection::All).await?;
        let letter = claim(&store, 1).await?;
        store.settle(&letter, Err(&HandlerError::new("again"))).await?;
        ensure_nothing_to_claim(&store).await?;
        let open = bench.harness.open("billing").await?;
        ensure_equal("the open letters", open.len(), 1)?;
        ensure_equal("its redrives", open[0].redrives, redrives)?;
        ensure_equal("its error", open[0].error.as_str(), "first")?;
    }
    bench.request(Selection::All).await?;
    ensure_equal("the redrives of a claim", claim(&store, 1).await?.redrives, 3)
}

pub(super) async fn failed_withdraws<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    put(&store, 2, "order-2", "no").await?;
    park(&store, &[(3, "order-1"), (4, "order-2")]).await?;
    bench.request(Selection::All).await?;
    let letter = claim(&store, 1).await?;
    store.settle(&letter, Err(&HandlerError::new("again"))).await?;
    redrive(&store, 2).await?;
    redrive(&store, 4).await?;
    ensure_nothing_to_claim(&store).await?;
    bench.ensure_open(&[1, 3]).await?;
    bench.request(Selection::ForeignId("order-1".into())).await?;
    redrive(&store, 1).await?;
    redrive(&store, 3).await
}

pub(super) async fn parked_alone_is_refused<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    park(&store, &[(2, "order-1"), (3, "order-1")]).await?;
    let Err(error) = bench.request(Selection::Event(3.into())).await else {
        return fail("it requested a redrive of what is behind an open letter");
    };
    let text = with_causes(error.as_error());
    for word in ["event 3", "billing", "event 1", "order-1"] {
        ensure(text.contains(word), || format!("the error does not say `{word}`: {text}"))?;
    }
    ensure_nothing_to_claim(&store).await?;
    for id in [1, 2, 3] {
        bench.request(Selection::Event(id.into())).await?;
    }
    for id in [1, 2, 3] {
        redrive(&store, id).await?;
    }
    Ok(())
}

pub(super) async fn discard<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    park(&store, &[(2, "order-1"), (3, "order-1")]).await?;
    bench.discard(Selection::Event(1.into())).await?;
    bench.ensure_open(&[2, 3]).await?;
    ensure_equal("what is behind the rest", park(&store, &[(4, "order-1")]).await?, vec![true])?;
    bench.request(Selection::Event(2.into())).await?;
    redrive(&store, 2).await?;
    bench.discard(Selection::ForeignId("order-1".into())).await?;
    bench.ensure_open(&[]).await
}

pub(super) async fn discarded_while_redriven<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    for outcome in [Ok(()), Err(&HandlerError::new("again"))] {
        put(&store, 1, "order-1", "no").await?;
        bench.request(Selection::All).await?;
        let letter = claim(&store, 1).await?;
        bench.discard(Selection::All).await?;
        store.settle(&letter, outcome).await?;
        bench.ensure_open(&[]).await?;
    }
    Ok(())
}

pub(super) async fn claim_runs_out<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.leases {
        return Ok(());
    }
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "no").await?;
    park(&store, &[(2, "order-1")]).await?;
    bench.request(Selection::All).await?;
    claim(&store, 1).await?;
    ensure_nothing_to_claim(&other).await?;
    bench.harness.expire_claims().await?;
    redrive(&other, 1).await?;
    let second = claim(&store, 2).await?;
    bench.harness.expire_claims().await?;
    // Nobody took it over, so it is still its claimer's.
    store.settle(&second, Ok(())).await?;
    bench.ensure_open(&[]).await
}

pub(super) async fn claim_taken_over<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.leases {
        return Ok(());
    }
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "no").await?;
    bench.request(Selection::All).await?;
    let first = claim(&store, 1).await?;
    bench.harness.expire_claims().await?;
    let second = claim(&other, 1).await?;
    store.settle(&first, Ok(())).await?;
    bench.ensure_open(&[1]).await?;
    store.settle(&first, Err(&HandlerError::new("again"))).await?;
    ensure_nothing_to_claim(&store).await?;
    other.settle(&second, Err(&HandlerError::new("again"))).await?;
    ensure_equal("the redrives", bench.harness.open("billing").await?[0].redrives, 1)?;
    // A claim ends once.
    other.settle(&second, Ok(())).await?;
    bench.ensure_open(&[1]).await
}
