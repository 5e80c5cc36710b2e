use std::{fmt, str::FromStr};

use crate::Error;

const SAMPLED: u8 = 1;

/// The position of a producer in a distributed trace, as [W3C trace context](https://www.w3.org/TR/trace-context/)
/// defines it.
///
/// It travels in the trace bytes of an event, so that a consumer's work continues the producer's trace. The encoding is
/// luno/reflex's `Trace` protobuf message (trace id = 1, span id = 2, both as hexadecimal text), which Go services read
/// and write; the flags follow as field 3 when they are not "sampled". Trace bytes that hold a `traceparent` header are
/// read too.
///
/// # Examples
///
/// ```
/// use reflex_core::SpanContext;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: SpanContext = header.parse()?;
/// assert_eq!(SpanContext::decode(&context.encode()), Some(context));
/// assert_eq!(context.to_string(), header);
/// # Ok::<(), reflex_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl SpanContext {
    /// A sampled context. Returns `None` if an id is zero, which the standard forbids.
    #[must_use]
    pub fn new(trace_id: u128, span_id: u64) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: SAMPLED })
    }

    /// Sets the trace flags; bit 0 says that the trace is sampled.
    #[must_use]
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The id of the whole trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id of the producer's span.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// The trace flags.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// True if the producer records this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace bytes of an event.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(54);
        put_text(&mut bytes, 1, &format!("{:032x}", self.trace_id));
        put_text(&mut bytes, 2, &format!("{:016x}", self.span_id));
        if self.flags != SAMPLED {
            bytes.push(3 << 3);
            put_varint(&mut bytes, self.flags.into());
        }
        bytes
    }

    /// Reads the trace bytes of an event. Returns `None` if there are none, or if they are of no known form.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let header = std::str::from_utf8(bytes).ok().and_then(parse_traceparent);
        header.or_else(|| decode_message(bytes))
    }
}

impl fmt::Display for SpanContext {
    /// Writes the `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for SpanContext {
    type Err = Error;

    /// Reads a `traceparent` header.
    fn from_str(header: &str) -> Result<Self, Error> {
        parse_traceparent(header).ok_or_else(|| {
            Error::invalid("not a traceparent header, which is `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`")
        })
    }
}

fn parse_traceparent(header: &str) -> Option<SpanContext> {
    let mut fields = header.split('-');
    let version = fields.next().filter(|version| *version != "ff")?;
    parse_hex(version, 2)?;
    let trace_id = parse_hex(fields.next()?, 32)?;
    let span_id = parse_hex(fields.next()?, 16)?;
    let flags = parse_hex(fields.next()?, 2)?;
    if version == "00" && fields.next().is_some() {
        return None;
    }
    Some(SpanContext::new(trace_id, u64::try_from(span_id).ok()?)?.with_flags(u8::try_from(flags).ok()?))
}

fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(text, 16).ok() } else { None }
}

fn decode_message(mut bytes: &[u8]) -> Option<SpanContext> {
    let (mut trace_id, mut span_id, mut flags) = (None, None, SAMPLED);
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        match (key >> 3, key & 7) {
            (1, 2) => trace_id = parse_hex(take_text(&mut bytes)?, 32),
            (2, 2) => span_id = parse_hex(take_text(&mut bytes)?, 16),
            (3, 0) => flags = u8::try_from(take_varint(&mut bytes)?).ok()?,
            (_, wire_type) => skip(&mut bytes, wire_type)?,
        }
    }
    Some(SpanContext::new(trace_id?, u64::try_from(span_id?).ok()?)?.with_flags(flags))
}

fn put_text(bytes: &mut Vec<u8>, field: u8, text: &str) {
    bytes.push(field << 3 | 2);
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_varint(bytes)?;
    std::str::from_utf8(take_bytes(bytes, len)?).ok()
}

/// Passes over a field of a newer message version.
fn skip(bytes: &mut &[u8], wire_type: u64) -> Option<()> {
    match wire_type {
        0 => take_varint(bytes).map(drop),
        1 => take_bytes(bytes, 8).map(drop),
        2 => {
            let len = take_varint(bytes)?;
            take_bytes(bytes, len).map(drop)
        }
        5 => take_bytes(bytes, 4).map(drop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn check_rejected(header: &str) {
        assert!(header.parse::<SpanContext>().is_err(), "{header}");
        assert_eq!(SpanContext::decode(header.as_bytes()), None, "{header}");
    }

    #[test]
    fn a_go_trace_message_is_read_and_written_byte_for_byte() {
        let mut message = vec![0x0a, 32];
        message.extend_from_slice(b"0af7651916cd43dd8448eb211c80319c");
        message.extend_from_slice(&[0x12, 16]);
        message.extend_from_slice(b"b7ad6b7169203331");
        let context = SpanContext::decode(&message).unwrap();
        assert_eq!(context.to_string(), HEADER);
        assert_eq!(context.encode(), message);
    }

    #[test]
    fn flags_survive_and_unknown_fields_are_passed_over() {
        let context: SpanContext = HEADER.parse().unwrap();
        let context = context.with_flags(0);
        let mut bytes = context.encode();
        bytes.extend_from_slice(&[0x22, 2, 1, 2, 0x28, 0x80, 0x01, 0x35, 1, 2, 3, 4]);
        assert_eq!(SpanContext::decode(&bytes), Some(context));
    }

    #[test]
    fn malformed_contexts_are_none() {
        check_rejected("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331");
        check_rejected("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        check_rejected("+1-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        check_rejected("0A-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        check_rejected("00-00000000000000000000000000000000-b7ad6b7169203331-01");
        check_rejected("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01");
        check_rejected("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x");
        for len in 0..54 {
            let bytes = HEADER.parse::<SpanContext>().unwrap().encode();
            assert_eq!(SpanContext::decode(&bytes[..len.min(bytes.len() - 1)]), None);
        }
    }
}
