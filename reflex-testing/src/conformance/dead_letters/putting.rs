use reflex_core::{Cursor, DeadLetterStore, HandlerError, Selection};

use super::{
    DeadLetterHarness,
    bench::{BOUND, Bench, event, ids, park, put, redrive, whole_event},
};
use crate::{
    conformance::runner::{Outcome, ensure, ensure_equal, fail, with_causes},
    poll_times,
};

pub(super) async fn put_aside<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    bench.ensure_open(&[]).await?;
    put(&store, 1, "order-1", "no such card").await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal("the open letters", ids(&open), vec!["1".to_owned()])?;
    ensure_equal("its error", open[0].error.as_str(), "no such card")?;
    ensure_equal("its consumer", &*open[0].consumer, "billing")?;
    ensure_equal("its redrives", open[0].redrives, 0)?;
    ensure(!open[0].parked, || "it is parked".into())
}

pub(super) async fn whole_events<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let events = [
        whole_event("1", "order-1", b"{\"amount\": 3}", b"trace"),
        whole_event("9223372036854775807", "order-2", &bytes, &bytes[..300]),
        whole_event("1526919030474-55", "", b"", b""),
    ];
    for event in &events {
        store.put("billing", event, &HandlerError::new("no")).await?;
    }
    let open = bench.store().await?;
    bench.request(Selection::All).await?;
    for event in &events {
        let Some(letter) = open.claim("billing").await? else { return fail("there was nothing to claim") };
        ensure_equal("the claimed event", &letter.event, event)?;
    }
    Ok(())
}

pub(super) async fn the_first_error_stays<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    put(&store, 1, "order-1", "first").await?;
    put(&store, 1, "order-1", "second").await?;
    put(&other, 1, "order-1", "third").await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal("the errors", open.iter().map(|letter| letter.error.as_str()).collect(), vec!["first"])
}

pub(super) async fn open_events<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    ensure(store.open_events("billing").await?.is_empty(), || "there is none".into())?;
    for (id, order) in [(1, "order-1"), (2, "order-2"), (3, "order-3")] {
        put(&store, id, order, "no").await?;
    }
    park(&store, &[(4, "order-2")]).await?;
    store.put("shipping", &event(5, "order-1"), &HandlerError::new("no")).await?;
    bench.request(Selection::Event(1.into())).await?;
    redrive(&store, 1).await?;
    let open = bench.store().await?.open_events("billing").await?;
    ensure_equal("the open events", open, [2, 3, 4].map(Cursor::from).into())
}

pub(super) async fn opened_again<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "first").await?;
    bench.request(Selection::All).await?;
    redrive(&store, 1).await?;
    bench.ensure_open(&[]).await?;
    put(&store, 1, "order-1", "second").await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal(
        "the errors after a redrive",
        open.iter().map(|letter| letter.error.as_str()).collect(),
        vec!["second"],
    )?;
    ensure_equal("what can be claimed unasked", store.claim("billing").await?.map(|letter| letter.error), None)?;
    bench.discard(Selection::All).await?;
    put(&store, 1, "order-1", "third").await?;
    let open = bench.harness.open("billing").await?;
    ensure_equal("the errors after a discard", open.iter().map(|letter| letter.error.as_str()).collect(), vec!["third"])
}

pub(super) async fn order<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    for (id, store) in [(30, &store), (4, &other), (200, &store), (1, &other), (5, &store)] {
        put(store, id, &format!("order-{id}"), "no").await?;
    }
    bench.ensure_open(&[30, 4, 200, 1, 5]).await?;
    bench.request(Selection::All).await?;
    for id in [30, 4, 200, 1, 5] {
        redrive(&store, id).await?;
    }
    bench.ensure_open(&[]).await
}

pub(super) async fn bound<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    let bound = BOUND as i64;
    for id in 1..=bound {
        put(&store, id, &format!("order-{id}"), "no").await?;
    }
    ensure_bound_hit(put(&store, bound + 1, "order-x", "no").await)?;
    put(&store, bound, "order-x", "again").await?;
    ensure_equal("the number of letters", bench.open().await?.len(), BOUND)?;
    store.put("shipping", &event(1, "order-1"), &HandlerError::new("no")).await?;
    bench.discard(Selection::Event(1.into())).await?;
    put(&store, bound + 1, "order-x", "no").await
}

pub(super) async fn bound_of_parked<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    let bound = BOUND as i64;
    put(&store, 1, "order-1", "no").await?;
    let behind: Vec<_> = (2..=bound).map(|id| (id, "order-1")).collect();
    ensure_equal("what is put aside", park(&store, &behind).await?, vec![true; behind.len()])?;
    ensure_bound_hit(park(&store, &[(bound + 1, "order-1")]).await.map(drop))?;
    ensure_equal("the others", park(&store, &[(bound + 2, "order-2"), (2, "order-1")]).await?, vec![false, true])
}

fn ensure_bound_hit(result: Outcome) -> Outcome {
    let Err(error) = result else { return fail("it put more aside than the bound") };
    let text = with_causes(error.as_error());
    for word in ["billing", &BOUND.to_string(), "redrive", "discard"] {
        ensure(text.contains(word), || format!("the error does not say `{word}`: {text}"))?;
    }
    Ok(())
}

pub(super) async fn consumers_are_independent<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, 1, "order-1", "no").await?;
    store.put("shipping", &event(1, "order-1"), &HandlerError::new("never")).await?;
    ensure_equal("what is behind", store.park_behind("other", &[event(2, "order-1")]).await?, vec![false])?;
    bench.request(Selection::All).await?;
    ensure_equal("what the other can claim", store.claim("shipping").await?.map(|letter| letter.error), None)?;
    bench.discard(Selection::All).await?;
    let open = bench.harness.open("shipping").await?;
    ensure_equal("the letters of the other", ids(&open), vec!["1".to_owned()])
}

pub(super) async fn names_that_differ_in_little<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.exact_names {
        return Ok(());
    }
    let store = bench.store().await?;
    put(&store, 1, "order", "no").await?;
    for foreign_id in ["Order", "order ", " order", "órder"] {
        ensure_equal(
            &format!("whether {foreign_id:?} is behind"),
            park(&store, &[(2, foreign_id)]).await?,
            vec![false],
        )?;
    }
    for consumer in ["Billing", "billing ", "billíng"] {
        ensure_equal(&format!("the letters of {consumer:?}"), ids(&bench.harness.open(consumer).await?), Vec::new())?;
    }
    Ok(())
}

pub(super) async fn any_text<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    let long = "x".repeat(200);
    let texts = ["a b", "a'b", "a\"b", "a`b", "a\\b", "a;--", "$1", "?", "{a}", "%", "_", "a\nb", "名前", "🦀", &long];
    for text in texts {
        store.put(text, &whole_event(text, text, b"", b""), &HandlerError::new(text)).await?;
    }
    for text in texts {
        let open = bench.harness.open(text).await?;
        ensure_equal("the ids", ids(&open), vec![text.to_owned()])?;
        ensure_equal("the foreign id", open[0].event.foreign_id(), text)?;
        ensure_equal("the error", open[0].error.as_str(), text)?;
        let behind = store.park_behind(text, &[whole_event("other", text, b"", b"")]).await?;
        ensure_equal("what is put aside", behind, vec![true])?;
    }
    Ok(())
}

pub(super) async fn dropped<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    for (polls, id) in (0..20).zip(1..) {
        let letter = event(id, "order-1");
        drop(poll_times(polls, store.put("billing", &letter, &HandlerError::new("no"))).await);
        drop(poll_times(polls, store.park_behind("billing", &[event(id + 100, "order-1")])).await);
        put(&store, id, "order-1", "no").await?;
    }
    let open = bench.open().await?;
    for id in 1..=20 {
        let times = open.iter().filter(|open| **open == id.to_string()).count();
        ensure_equal(&format!("how often event {id} is open"), times, 1)?;
    }
    Ok(())
}
