//! Events and options as messages, and back. What does not fit is an error, never a guess.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reflex_core::{Cursor, Error, Event, EventParts, Result, Start, StreamOptions};

use crate::reflexpb;

/// The years 1 to 9999, in seconds: what `google.protobuf.Timestamp` allows.
const TIMESTAMP_SECONDS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// Ten thousand years: what `google.protobuf.Duration` allows.
const MAX_DURATION_SECONDS: u64 = 315_576_000_000;

const MAX_NANOS: u32 = 999_999_999;

/// Fails if the timestamp is not in the years 1 to 9999. A leap second becomes the last nanosecond before it.
impl TryFrom<&Event> for reflexpb::Event {
    type Error = Error;

    fn try_from(event: &Event) -> Result<Self> {
        Ok(Self {
            r#type: event.event_type().0,
            timestamp: Some(timestamp_to_proto(event)?),
            foreign_id: event.foreign_id().to_owned(),
            id: event.id().to_string(),
            metadata: event.metadata().to_vec(),
            trace: event.trace().to_vec(),
        })
    }
}

/// Fails if there is no id or no timestamp, or one that is out of range. Every type is one: what it means is for the
/// consumer to know.
impl TryFrom<reflexpb::Event> for Event {
    type Error = Error;

    fn try_from(event: reflexpb::Event) -> Result<Self> {
        if event.id.is_empty() {
            return Err(Error::invalid(format!(
                "read an event over gRPC: the one of foreign id `{}` has no id",
                event.foreign_id
            )));
        }
        Ok(Event::from(EventParts {
            timestamp: timestamp_from_proto(&event)?,
            id: event.id.as_str().into(),
            event_type: event.r#type.into(),
            foreign_id: &event.foreign_id,
            metadata: &event.metadata,
            trace: &event.trace,
        }))
    }
}

/// Fails for what the messages cannot express: an empty cursor, a lag of more than ten thousand years.
impl TryFrom<&StreamOptions> for reflexpb::StreamRequest {
    type Error = Error;

    fn try_from(options: &StreamOptions) -> Result<Self> {
        let after = options.start_after().map(Cursor::to_string);
        if after.as_deref() == Some("") {
            return Err(Error::invalid("stream events over gRPC after an empty cursor: it would be the beginning"));
        }
        Ok(Self {
            options: Some(reflexpb::StreamOptions {
                lag: lag_to_proto(options.min_age())?,
                from_head: options.start() == &Start::Head,
                to_head: options.is_to_head(),
            }),
            after: after.unwrap_or_default(),
        })
    }
}

/// Fails if the lag is negative or out of range. From head wins over a cursor, as in luno/reflex.
impl TryFrom<reflexpb::StreamRequest> for StreamOptions {
    type Error = Error;

    fn try_from(request: reflexpb::StreamRequest) -> Result<Self> {
        let asked = request.options.unwrap_or_default();
        let start = match request.after.as_str() {
            _ if asked.from_head => Start::Head,
            "" => Start::Beginning,
            after => Start::After(after.into()),
        };
        let lag = asked.lag.map(lag_from_proto).transpose()?.unwrap_or_default();
        let options = StreamOptions::new().starting(start).lag(lag);
        Ok(if asked.to_head { options.to_head() } else { options })
    }
}

fn timestamp_to_proto(event: &Event) -> Result<prost_types::Timestamp> {
    let timestamp = event.timestamp();
    let seconds = timestamp.timestamp();
    if !TIMESTAMP_SECONDS.contains(&seconds) {
        let message = format!("send an event over gRPC: its timestamp {timestamp} is not in the years 1 to 9999");
        return Err(Error::invalid(message).at_event(event));
    }
    let nanos = timestamp.timestamp_subsec_nanos().min(MAX_NANOS);
    Ok(prost_types::Timestamp { seconds, nanos: nanos.cast_signed() })
}

fn timestamp_from_proto(event: &reflexpb::Event) -> Result<DateTime<Utc>> {
    let Some(timestamp) = event.timestamp else {
        return Err(Error::invalid(format!("read event {} over gRPC: it has no timestamp", event.id)));
    };
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos <= MAX_NANOS);
    let read = nanos
        .filter(|_| TIMESTAMP_SECONDS.contains(&timestamp.seconds))
        .and_then(|nanos| DateTime::from_timestamp(timestamp.seconds, nanos));
    read.ok_or_else(|| {
        let prost_types::Timestamp { seconds, nanos } = timestamp;
        Error::invalid(format!(
            "read event {} over gRPC: its timestamp of {seconds} s and {nanos} ns is not in the years 1 to 9999",
            event.id
        ))
    })
}

/// Like luno/reflex, no lag is no message.
fn lag_to_proto(lag: Duration) -> Result<Option<prost_types::Duration>> {
    if lag.is_zero() {
        return Ok(None);
    }
    match i64::try_from(lag.as_secs()) {
        Ok(seconds) if lag.as_secs() <= MAX_DURATION_SECONDS => {
            Ok(Some(prost_types::Duration { seconds, nanos: lag.subsec_nanos().cast_signed() }))
        }
        _ => Err(Error::invalid(format!(
            "stream events over gRPC with a lag of {lag:?}: at most 10,000 years can be sent"
        ))),
    }
}

fn lag_from_proto(lag: prost_types::Duration) -> Result<Duration> {
    let prost_types::Duration { seconds, nanos } = lag;
    let whole = u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_DURATION_SECONDS);
    let nanoseconds = u32::try_from(nanos).ok().filter(|nanos| *nanos <= MAX_NANOS);
    match (whole, nanoseconds) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Error::invalid(format!(
            "stream events with a lag of {seconds} s and {nanos} ns: it must be between 0 and 10,000 years"
        ))),
    }
}
