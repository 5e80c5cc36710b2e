//! What an event carries.

use chrono::{DateTime, TimeDelta, Utc};
use reflex_core::{Event, NewEvent, StreamOptions};

use super::{
    StreamHarness,
    reader::{Bench, ensure_numbered, numbered},
};
use crate::conformance::runner::{Outcome, ensure, ensure_equal, fail};

/// Appends the events and reads them back.
async fn round_trip<H: StreamHarness>(bench: &Bench<H>, events: &[NewEvent]) -> Outcome<Vec<Event>> {
    for event in events {
        bench.harness.append(event.clone()).await?;
    }
    bench.read(events.len()).await
}

pub(super) async fn placeholders<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.placeholders {
        return Ok(());
    }
    let mut live = bench.open(StreamOptions::new()).await?;
    bench.harness.append_placeholder().await?;
    for number in 1..=3 {
        bench.append(number..=number).await?;
        bench.harness.append_placeholder().await?;
        bench.harness.append_placeholder().await?;
    }
    bench.append(4..=4).await?;
    bench.harness.append_placeholder().await?;
    ensure_numbered(&live.take(4).await?, 1..=4)?;
    live.is_idle().await?;
    ensure_numbered(&bench.read(4).await?, 1..=4)?;
    if bench.capabilities.to_head {
        ensure_numbered(&bench.open(StreamOptions::new().to_head()).await?.rest().await?, 1..=4)?;
    }
    Ok(())
}

pub(super) async fn foreign_ids<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let long = "ж".repeat(200);
    let foreign_ids = [
        "1",
        "0",
        "00",
        "-1",
        "order-12",
        "ORDER-12",
        "a b",
        " a ",
        "a'b\"c`d",
        "a\\b",
        "%s",
        "{}",
        "null",
        "a\tb\nc",
        "日本語",
        "🦀🚀",
        "e\u{301}",
        "\u{e9}",
        &long,
    ];
    let events: Vec<_> = foreign_ids.iter().map(|id| NewEvent::new(id, 1)).collect();
    for (found, expected) in round_trip(bench, &events).await?.iter().zip(foreign_ids) {
        ensure_equal("the foreign id", found.foreign_id(), expected)?;
    }
    Ok(())
}

pub(super) async fn types<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let types = [0, 1, 2, 255, 65_536, i32::MAX, -1];
    let events: Vec<_> = types.iter().map(|event_type| NewEvent::new("order-12", *event_type)).collect();
    for (found, expected) in round_trip(bench, &events).await?.iter().zip(types) {
        ensure(found.is_type(expected), || format!("found {:?}, expected type {expected}", found.event_type()))?;
    }
    Ok(())
}

pub(super) async fn metadata<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.metadata {
        return Ok(());
    }
    let payloads = payloads(bench.capabilities.max_bytes);
    let events: Vec<_> = payloads.iter().map(|bytes| numbered(1).metadata(bytes.clone())).collect();
    for (found, expected) in round_trip(bench, &events).await?.iter().zip(&payloads) {
        ensure_bytes("the metadata", found.metadata(), expected)?;
        ensure_bytes("the trace beside it", found.trace(), b"")?;
    }
    Ok(())
}

pub(super) async fn trace<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.trace {
        return Ok(());
    }
    let payloads = payloads(bench.capabilities.max_bytes);
    let events: Vec<_> = payloads.iter().map(|bytes| numbered(1).trace(bytes.clone())).collect();
    for (found, expected) in round_trip(bench, &events).await?.iter().zip(&payloads) {
        ensure_bytes("the trace", found.trace(), expected)?;
        ensure_bytes("the metadata beside it", found.metadata(), b"")?;
    }
    Ok(())
}

/// Nothing, text, each byte there is, bytes that are no UTF-8, and as much as fits.
fn payloads(max: usize) -> Vec<Vec<u8>> {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let large = every_byte.iter().copied().cycle().take(max).collect();
    vec![Vec::new(), br#"{"amount":3}"#.to_vec(), vec![0], vec![0xff, 0xfe, 0xc3, 0x28], every_byte, large]
}

fn ensure_bytes(what: &str, found: &[u8], expected: &[u8]) -> Outcome {
    let shown = |bytes: &[u8]| format!("{} bytes: {}", bytes.len(), bytes[..bytes.len().min(40)].escape_ascii());
    ensure(found == expected, || format!("{what}: found {}, expected {}", shown(found), shown(expected)))
}

pub(super) async fn timestamps<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    let Some(precision) = bench.capabilities.timestamps else {
        return Ok(());
    };
    let seconds = [1_000_000_000, 1_720_000_000, 1_743_296_400, 2_000_000_000];
    let timestamps: Vec<_> = seconds.iter().filter_map(|at| DateTime::from_timestamp(*at, 123_456_000)).collect();
    let events: Vec<_> = timestamps.iter().map(|timestamp| numbered(1).timestamp(*timestamp)).collect();
    for (found, expected) in round_trip(bench, &events).await?.iter().zip(&timestamps) {
        let off = (found.timestamp() - expected).abs().to_std().unwrap_or_default();
        ensure(off < precision, || format!("found the timestamp {}, expected {expected}", found.timestamp()))?;
    }
    Ok(())
}

/// Without a timestamp the event happened about now, in UTC.
pub(super) async fn timestamps_by_default<H: StreamHarness>(bench: &Bench<H>) -> Outcome {
    bench.append(1..=1).await?;
    let Some(event) = bench.read(1).await?.pop() else {
        return fail("no event was read");
    };
    let off = (Utc::now() - event.timestamp()).abs();
    ensure(off < TimeDelta::minutes(10), || format!("the timestamp {} is {off} off", event.timestamp()))
}
