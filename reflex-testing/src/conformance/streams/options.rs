//! Where a stream ends, and which events it holds back.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use reflex_core::StreamOptions;

use super::{
    StreamHarness,
    reader::{Bench, ensure_numbered, numbered},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal};

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

pub(super) async fn to_head<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.to_head {
        return Ok(());
    }
    bench.append(1..=300).await?;
    let events = bench.open(StreamOptions::new().to_head()).await?.rest().await?;
    ensure_numbered(&events, 1..=300)?;
    let after = |at: usize| StreamOptions::new().after(events[at].id().clone()).to_head();
    ensure_numbered(&bench.open(after(296)).await?.rest().await?, 298..=300)?;
    ensure_equal("the events after the last", bench.open(after(299)).await?.rest().await?, Vec::new())
}

pub(super) async fn to_head_of_nothing<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.to_head {
        return Ok(());
    }
    let mut reader = bench.open(StreamOptions::new().to_head()).await?;
    ensure_equal("the events of nothing", reader.rest().await?, Vec::new())?;
    bench.append(1..=1).await?;
    ensure_numbered(&bench.open(StreamOptions::new().to_head()).await?.rest().await?, 1..=1)
}

pub(super) async fn from_head_to_head<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !(bench.capabilities.to_head && bench.capabilities.from_head) {
        return Ok(());
    }
    bench.append(1..=3).await?;
    let mut reader = bench.open(StreamOptions::new().from_head().to_head()).await?;
    let events = reader.rest().await?;
    ensure_numbered(&events, 4 - events.len()..=3)
}

/// Nothing younger than the lag is delivered, and everything is once it is old enough.
pub(super) async fn lag_holds_events_back<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.lag {
        return Ok(());
    }
    let lag = Duration::from_millis(300);
    bench.append(1..=1).await?;
    let mut reader = bench.open(StreamOptions::new().lag(lag)).await?;
    for number in 1..=3 {
        let event = reader.next().await?;
        ensure_numbered(std::slice::from_ref(&event), number..=number)?;
        let age = (Utc::now() - event.timestamp()).to_std().unwrap_or_default();
        // A clock tick of the server may lie between the two clocks.
        ensure(age + Duration::from_millis(20) >= lag, || {
            format!("event {number} was delivered at an age of {age:?}")
        })?;
        bench.append(number + 1..=number + 1).await?;
    }
    Ok(())
}

pub(super) async fn lag_keeps_the_order<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !(bench.capabilities.lag && bench.capabilities.to_head && bench.capabilities.timestamps.is_some()) {
        return Ok(());
    }
    let old = Utc::now() - TimeDelta::hours(1);
    bench.harness.append(numbered(1).timestamp(old)).await?;
    bench.harness.append(numbered(2)).await?;
    bench.harness.append(numbered(3).timestamp(old)).await?;
    let options = StreamOptions::new().lag(HALF_AN_HOUR).to_head();
    ensure_numbered(&bench.open(options).await?.rest().await?, 1..=1)
}

pub(super) async fn unsupported_are_refused<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let capabilities = &bench.capabilities;
    let unsupported = [
        (capabilities.lag, StreamOptions::new().lag(Duration::from_secs(1))),
        (capabilities.to_head, StreamOptions::new().to_head()),
        (capabilities.from_head, StreamOptions::new().from_head()),
    ];
    for (_, options) in unsupported.into_iter().filter(|(supported, _)| !supported) {
        bench.open_refused(options).await?;
    }
    Ok(())
}
