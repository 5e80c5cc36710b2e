use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use triomphe::ThinArc;

use crate::{Cursor, Error, HandlerError, Result, SpanContext};

/// What kind of thing happened, as an integer that means something to the owner of the stream.
///
/// A service keeps an enum of its own and converts it both ways: `From<MyType> for EventType` to insert and compare, and
/// `TryFrom<EventType> for MyType` to match on.
///
/// # Examples
///
/// ```
/// use reflex_core::EventType;
///
/// #[derive(Debug, PartialEq)]
/// enum Order { Placed, Paid }
///
/// impl From<Order> for EventType {
///     fn from(order: Order) -> Self {
///         EventType(match order { Order::Placed => 1, Order::Paid => 2 })
///     }
/// }
///
/// impl TryFrom<EventType> for Order {
///     type Error = String;
///     fn try_from(event_type: EventType) -> Result<Self, String> {
///         match event_type.0 {
///             1 => Ok(Order::Placed),
///             2 => Ok(Order::Paid),
///             other => Err(format!("{other} is no order event")),
///         }
///     }
/// }
///
/// assert_eq!(Order::try_from(EventType::from(Order::Paid)), Ok(Order::Paid));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub i32);

impl From<i32> for EventType {
    fn from(value: i32) -> Self {
        Self(value)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Something that happened: an entry of an event stream.
///
/// The id is the event's position in the stream and therefore the cursor of a consumer that has consumed it. An event is one
/// pointer to one reference-counted allocation (an id that is text has its own), so to clone or to move it is cheap and one
/// read serves many consumers.
#[derive(Clone, PartialEq, Eq)]
pub struct Event(ThinArc<Header, u8>);

/// What an event has beside its bytes: foreign id, metadata and trace, one after the other.
#[derive(PartialEq, Eq)]
struct Header {
    id: Cursor,
    timestamp: DateTime<Utc>,
    event_type: EventType,
    foreign_id_end: u32,
    metadata_end: u32,
}

/// The parts that make an [`Event`]; sources fill it in and convert it.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, EventParts};
///
/// let event = Event::from(EventParts {
///     id: 7.into(),
///     event_type: 1.into(),
///     foreign_id: "order-12",
///     timestamp: Default::default(),
///     metadata: br#"{"amount":3}"#,
///     trace: b"",
/// });
/// assert_eq!(event.foreign_id(), "order-12");
/// ```
#[derive(Clone, Debug)]
pub struct EventParts<'a> {
    /// The position in the stream.
    pub id: Cursor,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// The id of the thing that it happened to.
    pub foreign_id: &'a str,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// Anything else the producer wants to tell; empty if nothing.
    pub metadata: &'a [u8],
    /// The encoded [`SpanContext`] of the producer; empty if none.
    pub trace: &'a [u8],
}

impl From<EventParts<'_>> for Event {
    /// # Panics
    ///
    /// If foreign id and metadata together exceed 4 GiB, which no source can hold in one row or message.
    fn from(parts: EventParts<'_>) -> Self {
        let foreign_id_end = parts.foreign_id.len();
        let metadata_end = foreign_id_end + parts.metadata.len();
        let offset = |at: usize| u32::try_from(at).expect("an event's fields fit in 4 GiB");
        let header = Header {
            id: parts.id,
            timestamp: parts.timestamp,
            event_type: parts.event_type,
            foreign_id_end: offset(foreign_id_end),
            metadata_end: offset(metadata_end),
        };
        Self(with_bytes(header, [parts.foreign_id.as_bytes(), parts.metadata, parts.trace]))
    }
}

impl Event {
    /// The position in the stream: the cursor of a consumer that has consumed this event.
    #[must_use]
    pub fn id(&self) -> &Cursor {
        &self.header().id
    }

    /// What kind of thing happened.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        self.header().event_type
    }

    /// True if the event is of this type.
    pub fn is_type(&self, event_type: impl Into<EventType>) -> bool {
        self.event_type() == event_type.into()
    }

    /// True if the event is of one of these types.
    pub fn is_any_type<T: Into<EventType>>(&self, types: impl IntoIterator<Item = T>) -> bool {
        types.into_iter().any(|event_type| self.is_type(event_type))
    }

    /// The id of the thing that it happened to, for example an order.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the bytes were copied from a str")]
    pub fn foreign_id(&self) -> &str {
        std::str::from_utf8(self.foreign_id_bytes()).expect("the foreign id was copied from a str")
    }

    /// The foreign id without the price of a check that it is text.
    pub(crate) fn foreign_id_bytes(&self) -> &[u8] {
        &self.bytes()[..self.header().foreign_id_end as usize]
    }

    /// When it happened, by the clock of whoever recorded it.
    #[must_use]
    pub fn timestamp(&self) -> DateTime<Utc> {
        self.header().timestamp
    }

    /// Anything else the producer told; empty if nothing.
    #[must_use]
    pub fn metadata(&self) -> &[u8] {
        &self.bytes()[self.header().foreign_id_end as usize..self.header().metadata_end as usize]
    }

    /// The encoded trace context of the producer; empty if none.
    #[must_use]
    pub fn trace(&self) -> &[u8] {
        &self.bytes()[self.header().metadata_end as usize..]
    }

    /// The id as an integer.
    ///
    /// # Errors
    ///
    /// If the source has other ids, for example Redis entry ids.
    pub fn id_as_i64(&self) -> Result<i64> {
        let id = self.id().as_i64();
        id.ok_or_else(|| Error::invalid("the event id is not an integer").at_event(self))
    }

    /// The foreign id as an integer.
    ///
    /// # Errors
    ///
    /// If it is not an integer that fits.
    pub fn foreign_id_as_i64(&self) -> Result<i64> {
        let id = self.foreign_id().parse();
        id.map_err(|_| Error::invalid("the foreign id is not an integer").at_event(self))
    }

    /// The metadata as JSON.
    ///
    /// # Errors
    ///
    /// If the metadata is not JSON of the shape of `T`; empty metadata is not JSON.
    pub fn metadata_json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        Ok(serde_json::from_slice(self.metadata())?)
    }

    /// The trace context that the producer recorded, or `None` if there is none that can be read.
    #[must_use]
    pub fn span_context(&self) -> Option<SpanContext> {
        SpanContext::decode(self.trace())
    }

    /// True for a placeholder that fills a gap in an events table: foreign id `"0"` and type 0.
    ///
    /// Sources recognise placeholders and never deliver them.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        is_noop(self.event_type(), self.foreign_id())
    }

    fn header(&self) -> &Header {
        &self.0.header.header
    }

    fn bytes(&self) -> &[u8] {
        &self.0.slice
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", self.id())
            .field("event_type", &self.event_type().0)
            .field("foreign_id", &self.foreign_id())
            .field("timestamp", &self.timestamp())
            .field("metadata", &self.metadata().escape_ascii().to_string())
            .field("trace", &self.trace().escape_ascii().to_string())
            .finish()
    }
}

/// An event that is about to be recorded: it has no id yet.
///
/// # Examples
///
/// ```
/// use reflex_core::NewEvent;
///
/// let event = NewEvent::new("order-12", 1).metadata(br#"{"amount":3}"#);
/// assert_eq!(event.parts().foreign_id, "order-12");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    foreign_id: String,
    event_type: EventType,
    timestamp: Option<DateTime<Utc>>,
    metadata: Vec<u8>,
    trace: Vec<u8>,
}

/// What a [`NewEvent`] holds, for those who write it down.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NewEventParts<'a> {
    /// The id of the thing that it happened to.
    pub foreign_id: &'a str,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// When it happened; `None` leaves it to the clock of the database.
    pub timestamp: Option<DateTime<Utc>>,
    /// Anything else; empty if nothing.
    pub metadata: &'a [u8],
    /// The encoded trace context; empty if none.
    pub trace: &'a [u8],
}

impl NewEvent {
    /// An event of this type that happened to `foreign_id`.
    #[must_use]
    pub fn new(foreign_id: impl ToString, event_type: impl Into<EventType>) -> Self {
        Self {
            foreign_id: foreign_id.to_string(),
            event_type: event_type.into(),
            timestamp: None,
            metadata: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// Says when it happened. By default the clock of the database decides.
    #[must_use]
    pub fn timestamp(mut self, timestamp: DateTime<Utc>) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Adds metadata, in whatever encoding producer and consumers agree on.
    #[must_use]
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = metadata.into();
        self
    }

    /// Adds metadata as JSON.
    ///
    /// # Errors
    ///
    /// If the value cannot be written as JSON, for example a map whose keys are not strings.
    pub fn metadata_json(self, value: &impl serde::Serialize) -> Result<Self, HandlerError> {
        Ok(self.metadata(serde_json::to_vec(value)?))
    }

    /// Adds the trace context that consumers of this event continue.
    #[must_use]
    pub fn span_context(mut self, context: &SpanContext) -> Self {
        self.trace = context.encode();
        self
    }

    /// Adds trace bytes that are encoded already, for example those of the event that caused this one.
    #[must_use]
    pub fn trace(mut self, trace: impl Into<Vec<u8>>) -> Self {
        self.trace = trace.into();
        self
    }

    /// What the event holds.
    #[must_use]
    pub fn parts(&self) -> NewEventParts<'_> {
        NewEventParts {
            foreign_id: &self.foreign_id,
            event_type: self.event_type,
            timestamp: self.timestamp,
            metadata: &self.metadata,
            trace: &self.trace,
        }
    }

    /// Checks what every events table asks of an event.
    ///
    /// # Errors
    ///
    /// If the event looks like a placeholder (foreign id `"0"` and type 0), which consumers would never see.
    pub fn validate(&self) -> Result<()> {
        if is_noop(self.event_type, &self.foreign_id) {
            return Err(Error::invalid(
                "an event with foreign id \"0\" and type 0 is a placeholder that no consumer would see: \
                 use another type",
            ));
        }
        Ok(())
    }
}

fn is_noop(event_type: EventType, foreign_id: &str) -> bool {
    event_type.0 == 0 && foreign_id == "0"
}

/// Copies the slices into one allocation; small events go over the stack to save a second one.
fn with_bytes(header: Header, slices: [&[u8]; 3]) -> ThinArc<Header, u8> {
    let mut stack = [0; 256];
    let len = slices.iter().map(|slice| slice.len()).sum();
    let Some(buffer) = stack.get_mut(..len) else {
        return ThinArc::from_header_and_slice(header, &slices.concat());
    };
    let mut at = 0;
    for slice in slices {
        buffer[at..at + slice.len()].copy_from_slice(slice);
        at += slice.len();
    }
    ThinArc::from_header_and_slice(header, buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(foreign_id: &str, metadata: &[u8], trace: &[u8]) -> Event {
        Event::from(EventParts {
            id: 1.into(),
            event_type: 2.into(),
            foreign_id,
            timestamp: DateTime::default(),
            metadata,
            trace,
        })
    }

    #[test]
    fn fields_come_back_whatever_their_size() {
        for size in [0, 1, 85, 86, 300, 10_000] {
            let (foreign_id, metadata, trace) = ("f".repeat(size), vec![1; size], vec![2; size]);
            let event = event(&foreign_id, &metadata, &trace);
            assert_eq!(event.foreign_id(), foreign_id);
            assert_eq!(event.metadata(), metadata);
            assert_eq!(event.trace(), trace);
        }
    }

    #[test]
    fn an_event_moves_as_one_pointer() {
        assert_eq!(size_of::<Option<Event>>(), size_of::<usize>());
    }

    #[test]
    fn helpers_name_the_event_that_they_cannot_read() {
        let event = event("x", b"{", b"");
        assert!(event.foreign_id_as_i64().unwrap_err().to_string().contains("event 1"));
        assert!(event.metadata_json::<u32>().is_err());
        assert_eq!(event.id_as_i64().unwrap(), 1);
    }

    #[test]
    fn only_type_zero_of_foreign_id_zero_is_a_noop() {
        assert!(NewEvent::new(0, 0).validate().is_err());
        assert!(NewEvent::new(0, 1).validate().is_ok());
        assert!(NewEvent::new("00", 0).validate().is_ok());
    }
}
