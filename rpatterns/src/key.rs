use std::{
    fmt::{self, Write},
    sync::Arc,
};

use reflex_core::{Event, HandlerError};

type ByFunction = Arc<dyn Fn(&Event, &mut Fnv) -> Result<(), HandlerError> + Send + Sync>;

/// What events have in common that must be handled one after the other: they go to the same lane, or the same shard.
///
/// Its bytes are hashed with FNV-1 of 32 bits, as `hash/fnv.New32` of Go does, so that shards in both languages agree. The
/// default is [`by_event_id`](Key::by_event_id).
///
/// # Examples
///
/// ```
/// use reflex_core::Event;
/// use rpatterns::Key;
///
/// let by_order = Key::by_foreign_id();
/// let by_customer = Key::by(|event: &Event| {
///     let order: std::collections::HashMap<String, String> = event.metadata_json()?;
///     Ok(order.get("customer").cloned().unwrap_or_default())
/// });
/// # let _ = (by_order, by_customer);
/// ```
#[derive(Clone, Default)]
pub struct Key(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    EventId,
    Type,
    ForeignId,
    Function(ByFunction),
}

impl Key {
    /// The event's own id: spreads best, and keeps no order.
    #[must_use]
    pub fn by_event_id() -> Self {
        Self(Kind::EventId)
    }

    /// The event's type, as a decimal number.
    #[must_use]
    pub fn by_type() -> Self {
        Self(Kind::Type)
    }

    /// The thing that it happened to: keeps the order of what happens to each.
    #[must_use]
    pub fn by_foreign_id() -> Self {
        Self(Kind::ForeignId)
    }

    /// The bytes that a function returns. An error of the function ends the run.
    #[must_use]
    pub fn by<B: AsRef<[u8]>>(key: impl Fn(&Event) -> Result<B, HandlerError> + Send + Sync + 'static) -> Self {
        Self(Kind::Function(Arc::new(move |event, hash| {
            hash.write(key(event)?.as_ref());
            Ok(())
        })))
    }

    /// Which of `n` lanes or shards an event belongs to, counted from 0.
    pub(crate) fn index(&self, event: &Event, n: usize) -> Result<usize, HandlerError> {
        let mut hash = Fnv::new();
        match &self.0 {
            Kind::EventId => write!(hash, "{}", event.id())?,
            Kind::Type => write!(hash, "{}", event.event_type())?,
            Kind::ForeignId => hash.write(event.foreign_id().as_bytes()),
            Kind::Function(function) => function(event, &mut hash)?,
        }
        Ok(hash.0 as usize % n)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::EventId => "Key::by_event_id",
            Kind::Type => "Key::by_type",
            Kind::ForeignId => "Key::by_foreign_id",
            Kind::Function(_) => "Key::by",
        })
    }
}

/// The FNV-1 hash of 32 bits: multiplies first, unlike FNV-1a.
struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
        }
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use reflex_core::{Cursor, Error, EventParts};

    use super::*;

    fn hash(bytes: &[u8]) -> u32 {
        let mut hash = Fnv::new();
        hash.write(bytes);
        hash.0
    }

    fn event(id: Cursor, event_type: i32, foreign_id: &str) -> Event {
        Event::from(EventParts {
            id,
            event_type: event_type.into(),
            foreign_id,
            timestamp: Default::default(),
            metadata: b"",
            trace: b"",
        })
    }

    #[track_caller]
    fn check(key: Key, event: &Event, bytes: &[u8]) {
        for n in [1, 2, 7, 16, u32::MAX as usize] {
            assert_eq!(key.index(event, n).unwrap(), hash(bytes) as usize % n, "{key:?} of {event:?} by {n}");
        }
    }

    #[test]
    fn the_vectors_of_the_specification() {
        assert_eq!(hash(b""), 0x811c_9dc5);
        assert_eq!(hash(b"a"), 0x050c_5d7e);
        assert_eq!(hash(b"foobar"), 0x31f0_b262);
    }

    #[test]
    fn keys_have_the_bytes_that_go_hashes() {
        let event = event(1_234.into(), -7, "order-12");
        check(Key::default(), &event, b"1234");
        check(Key::by_type(), &event, b"-7");
        check(Key::by_foreign_id(), &event, b"order-12");
        check(Key::by(|event| Ok(event.foreign_id().to_uppercase())), &event, b"ORDER-12");
        check(Key::by_event_id(), &self::event("1-0".into(), 0, ""), b"1-0");
    }

    #[test]
    fn a_function_may_fail() {
        let key = Key::by::<String>(|_| Err(Error::invalid("no customer").into()));
        assert_eq!(key.index(&event(1.into(), 1, "1"), 2).unwrap_err().to_string(), "no customer");
    }
}
