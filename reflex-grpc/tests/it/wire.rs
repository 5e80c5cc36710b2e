//! The bytes of the messages, written by hand from the specification of protobuf, as a Go encoder emits them.

use std::{fmt::Debug, time::Duration};

use chrono::{DateTime, Utc};
use prost::Message;
use reflex_core::{Cursor, Event, EventParts, StreamOptions};
use reflex_grpc::reflexpb::{self, StreamRequest};

/// `seconds: 1700000000, nanos: 123456789`
const TIMESTAMP: &[u8] = b"\x08\x80\xe2\xcf\xaa\x06\x10\x95\x9a\xef\x3a";

/// `trace_id: "0af7651916cd43dd8448eb211c80319c", span_id: "b7ad6b7169203331"`
const TRACE: &[u8] = b"\x0a\x200af7651916cd43dd8448eb211c80319c\x12\x10b7ad6b7169203331";

#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(message: &M, bytes: &[u8]) {
    assert_eq!(M::decode(bytes).unwrap(), *message);
    assert_eq!(message.encode_to_vec(), bytes, "{}", message.encode_to_vec().escape_ascii());
}

#[track_caller]
fn check_request(options: &StreamOptions, bytes: &[u8]) {
    let request = StreamRequest::try_from(options).unwrap();
    check(&request, bytes);
    assert_eq!(StreamOptions::try_from(request).unwrap(), *options);
}

fn event(id: &str, event_type: i32, timestamp: DateTime<Utc>, metadata: &[u8], trace: &[u8]) -> Event {
    let (id, event_type) = (Cursor::from(id), event_type.into());
    Event::from(EventParts { id, event_type, foreign_id: "order-12", timestamp, metadata, trace })
}

#[track_caller]
fn check_event(event: &Event, bytes: &[u8]) {
    let message = reflexpb::Event::try_from(event).unwrap();
    check(&message, bytes);
    assert_eq!(Event::try_from(message).unwrap(), *event);
}

#[test]
fn requests() {
    let new = StreamOptions::new;
    check_request(&new(), b"\x12\x00");
    check_request(&new().after(42), b"\x12\x00\x1a\x0242");
    check_request(&new().after("1526919030474-55"), b"\x12\x00\x1a\x101526919030474-55");
    check_request(&new().from_head(), b"\x12\x02\x10\x01");
    check_request(&new().after(7).to_head(), b"\x12\x02\x20\x01\x1a\x017");
    let lag = Duration::new(90, 5);
    check_request(&new().after(42).lag(lag).to_head(), b"\x12\x08\x0a\x04\x08\x5a\x10\x05\x20\x01\x1a\x0242");
    check_request(&new().from_head().lag(Duration::from_secs(300)), b"\x12\x07\x0a\x03\x08\xac\x02\x10\x01");
}

#[test]
fn options() {
    let lag = Some(prost_types::Duration { seconds: 0, nanos: 250_000_000 });
    let options = reflexpb::StreamOptions { lag, from_head: true, to_head: true };
    check(&options, b"\x0a\x05\x10\x80\xe5\x9a\x77\x10\x01\x20\x01");
    check(&reflexpb::StreamOptions::default(), b"");
}

#[test]
fn a_request_without_options_is_from_the_beginning() {
    let request = StreamRequest::decode(&b""[..]).unwrap();
    assert_eq!(StreamOptions::try_from(request).unwrap(), StreamOptions::new());
}

#[test]
fn from_head_wins_over_a_cursor_as_in_go() {
    let request = StreamRequest::decode(&b"\x12\x02\x10\x01\x1a\x0242"[..]).unwrap();
    assert_eq!(StreamOptions::try_from(request).unwrap(), StreamOptions::new().from_head());
}

#[test]
fn an_event_with_a_trace() {
    let timestamp = DateTime::from_timestamp(1_700_000_000, 123_456_789).unwrap();
    let event = event("42", 7, timestamp, b"{}\xff", TRACE);
    let bytes = [b"\x18\x07\x22\x0b".as_slice(), TIMESTAMP, b"\x2a\x08order-12\x32\x0242\x3a\x03{}\xff\x42\x34", TRACE];
    check_event(&event, &bytes.concat());
    let context = event.span_context().unwrap();
    assert_eq!(context.trace_id(), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    let trace = reflexpb::Trace::decode(TRACE).unwrap();
    assert_eq!(trace.span_id, "b7ad6b7169203331");
    check(&trace, TRACE);
}

#[test]
fn an_event_at_the_edges() {
    let epoch = DateTime::default();
    check_event(&event("a", 0, epoch, b"", b""), b"\x22\x00\x2a\x08order-12\x32\x01a");
    let before = DateTime::from_timestamp(-1, 0).unwrap();
    let minus_one = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".as_slice();
    let bytes = [b"\x18", minus_one, b"\x22\x0b\x08", minus_one, b"\x2a\x08order-12\x32\x01a"];
    check_event(&event("a", -1, before, b"", b""), &bytes.concat());
}

#[test]
fn fields_of_later_versions_and_of_the_first_are_passed_over() {
    // `id_int = 1` of the first version, and a field 100 of whatever kind.
    let bytes = b"\x08\x2a\x18\x07\x22\x00\x2a\x01x\x32\x0242\xa2\x06\x03abc";
    let event = Event::try_from(reflexpb::Event::decode(&bytes[..]).unwrap()).unwrap();
    assert_eq!((event.id(), event.foreign_id(), event.event_type()), (&42.into(), "x", 7.into()));
}

#[test]
fn a_leap_second_is_the_end_of_the_second_before() {
    let leap = DateTime::from_timestamp(1_483_228_799, 1_500_000_000).unwrap();
    let message = reflexpb::Event::try_from(&event("1", 1, leap, b"", b"")).unwrap();
    let timestamp = prost_types::Timestamp { seconds: 1_483_228_799, nanos: 999_999_999 };
    assert_eq!(message.timestamp, Some(timestamp));
}
