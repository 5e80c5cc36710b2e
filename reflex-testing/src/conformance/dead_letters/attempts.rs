use std::collections::HashMap;

use reflex_core::{AttemptStore, Cursor};

use super::{DeadLetterHarness, bench::Bench};
use crate::conformance::runner::{Outcome, ensure_equal};

pub(super) async fn attempts<H: DeadLetterHarness>(bench: &Bench<H>) -> Outcome {
    let (store, other) = (bench.store().await?, bench.store().await?);
    let text = Cursor::from("1526919030474-55");
    ensure_equal("no counts", store.attempts("billing").await?, HashMap::new())?;
    store.set_attempts("billing", &7.into(), 0).await?;
    store.set_attempts("billing", &7.into(), 1).await?;
    store.set_attempts("billing", &text, u32::MAX).await?;
    store.set_attempts("shipping", &7.into(), 9).await?;
    other.set_attempts("billing", &7.into(), 2).await?;
    other.set_attempts("billing", &7.into(), 2).await?;
    let counts = HashMap::from([(7.into(), 2), (text.clone(), u32::MAX)]);
    ensure_equal("the counts", store.attempts("billing").await?, counts)?;
    store.set_attempts("billing", &7.into(), 0).await?;
    ensure_equal("the counts", bench.store().await?.attempts("billing").await?, HashMap::from([(text, u32::MAX)]))?;
    ensure_equal("those of the other", other.attempts("shipping").await?, HashMap::from([(7.into(), 9)]))
}
