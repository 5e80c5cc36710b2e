use chrono::DateTime;
use reflex_core::{DeadLetter, DeadLetterStore, Event, EventParts, HandlerError, Selection};

use super::{DeadLetterCapabilities, DeadLetterHarness};
use crate::conformance::runner::{Outcome, ensure_equal};

/// The most letters that a consumer may have open in these cases.
pub(super) const BOUND: usize = 50;

pub(super) struct Bench<H> {
    pub(super) harness: H,
    pub(super) capabilities: DeadLetterCapabilities,
}

impl<H: DeadLetterHarness> Bench<H> {
    pub(super) async fn store(&self) -> Outcome<H::Store> {
        self.harness.store().await
    }

    /// The ids of the open letters of `billing`, oldest first.
    pub(super) async fn open(&self) -> Outcome<Vec<String>> {
        Ok(ids(&self.harness.open("billing").await?))
    }

    pub(super) async fn ensure_open(&self, expected: &[i64]) -> Outcome {
        let expected: Vec<_> = expected.iter().map(i64::to_string).collect();
        ensure_equal("the open letters", self.open().await?, expected)
    }

    /// Requests redrives for `billing`; answers with the ids.
    pub(super) async fn request(&self, selection: Selection) -> Outcome<Vec<String>> {
        Ok(ids(&self.harness.request("billing", &selection).await?))
    }

    /// Discards letters of `billing`; answers with the ids.
    pub(super) async fn discard(&self, selection: Selection) -> Outcome<Vec<String>> {
        Ok(ids(&self.harness.discard("billing", &selection).await?))
    }
}

pub(super) fn ids(letters: &[DeadLetter]) -> Vec<String> {
    letters.iter().map(|letter| letter.event.id().to_string()).collect()
}

pub(super) fn event(id: i64, foreign_id: &str) -> Event {
    whole_event(&id.to_string(), foreign_id, b"", b"")
}

pub(super) fn whole_event(id: &str, foreign_id: &str, metadata: &[u8], trace: &[u8]) -> Event {
    let timestamp = DateTime::from_timestamp_micros(1_700_000_000_123_000).unwrap_or_default();
    Event::from(EventParts { id: id.into(), event_type: 7.into(), foreign_id, timestamp, metadata, trace })
}

pub(super) async fn put<S: DeadLetterStore>(store: &S, id: i64, foreign_id: &str, error: &str) -> Outcome {
    Ok(store.put("billing", &event(id, foreign_id), &HandlerError::new(error)).await?)
}

pub(super) async fn park<S: DeadLetterStore>(store: &S, events: &[(i64, &str)]) -> Outcome<Vec<bool>> {
    let events: Vec<_> = events.iter().map(|&(id, foreign_id)| event(id, foreign_id)).collect();
    Ok(store.park_behind("billing", &events).await?)
}

/// Claims a letter of `billing` that has to be there.
pub(super) async fn claim<S: DeadLetterStore>(store: &S, expected: i64) -> Outcome<DeadLetter> {
    let Some(letter) = store.claim("billing").await? else {
        return Err(HandlerError::new(format!("there was nothing to claim, expected event {expected}")));
    };
    ensure_equal("the claimed event", letter.event.id(), &expected.into())?;
    Ok(letter)
}

pub(super) async fn ensure_nothing_to_claim<S: DeadLetterStore>(store: &S) -> Outcome {
    let claimed = store.claim("billing").await?.map(|letter| letter.event.id().clone());
    ensure_equal("what can be claimed", claimed, None)
}

/// Claims a letter of `billing` and settles it with success.
pub(super) async fn redrive<S: DeadLetterStore>(store: &S, expected: i64) -> Outcome {
    let letter = claim(store, expected).await?;
    Ok(store.settle(&letter, Ok(())).await?)
}
