use crate::Event;

/// What patterns can hand to a consumer: one event, or a batch of them in their order.
///
/// A pattern that works on both is generic over it: it may ask which events are inside, hand over a clone more than once,
/// and look for the one event that spoils a batch.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, Input, MemoryEvents, NewEvent};
///
/// let events = MemoryEvents::new();
/// let batch: Vec<Event> = (1..=3).map(|order| events.append(NewEvent::new(order, 1))).collect();
/// let (first, second) = batch.split().unwrap();
/// assert_eq!((first.len(), second.len()), (1, 2));
/// assert!(second[0].clone().split().is_err());
///
/// let last = second.retain(|event| event.foreign_id() == "3").unwrap();
/// assert_eq!(last.events()[0].id().as_i64(), Some(3));
/// assert!(last.retain(|_| false).is_none());
/// ```
pub trait Input: Clone + Send + Sync + 'static {
    /// The input that holds this one event.
    fn one(event: Event) -> Self;

    /// The events inside, in their order; never empty when a pattern hands it over.
    fn events(&self) -> &[Event];

    /// Two halves that are not empty, in their order.
    ///
    /// # Errors
    ///
    /// The input itself, if it cannot be divided.
    fn split(self) -> Result<(Self, Self), Self>;

    /// Keeps the events for which the answer is true; `None` if there are none.
    fn retain(self, keep: impl FnMut(&Event) -> bool) -> Option<Self>;
}

impl Input for Event {
    fn one(event: Event) -> Self {
        event
    }

    fn events(&self) -> &[Event] {
        std::slice::from_ref(self)
    }

    fn split(self) -> Result<(Self, Self), Self> {
        Err(self)
    }

    fn retain(self, mut keep: impl FnMut(&Event) -> bool) -> Option<Self> {
        keep(&self).then_some(self)
    }
}

impl Input for Vec<Event> {
    fn one(event: Event) -> Self {
        vec![event]
    }

    fn events(&self) -> &[Event] {
        self
    }

    fn split(mut self) -> Result<(Self, Self), Self> {
        if self.len() < 2 {
            return Err(self);
        }
        let second = self.split_off(self.len() / 2);
        Ok((self, second))
    }

    fn retain(mut self, keep: impl FnMut(&Event) -> bool) -> Option<Self> {
        Vec::retain(&mut self, keep);
        (!self.is_empty()).then_some(self)
    }
}
