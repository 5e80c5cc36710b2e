//! Events that are there already, so that reading them costs next to nothing.

use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use reflex_core::{Cursor, Error, Event, EventParts, Opened, StreamFunc, StreamOptions};

use crate::backend::NewRow;

/// A source of events that were made before. Each stream starts at the first one, and ends after the last.
#[derive(Clone)]
pub(crate) struct Ready(Arc<[Event]>);

impl Ready {
    pub(crate) fn new(count: u64) -> Self {
        Self((1..=count).map(event).collect())
    }

    pub(crate) fn events(&self) -> impl Stream<Item = reflex_core::Result<Event>> + Send + use<> {
        let events = self.0.clone();
        stream::iter((0..events.len()).map(move |at| Ok(events[at].clone())))
            .chain(stream::iter([Err(Error::head_reached())]))
    }
}

impl StreamFunc for Ready {
    type Stream = std::pin::Pin<Box<dyn Stream<Item = reflex_core::Result<Event>> + Send>>;

    async fn open(&self, _options: StreamOptions) -> reflex_core::Result<Opened<Self::Stream>> {
        Ok(Opened::new(self.events().boxed()))
    }
}

fn event(number: u64) -> Event {
    let row = NewRow::numbered(number);
    Event::from(EventParts {
        id: Cursor::from(number as i64),
        event_type: row.event_type.into(),
        foreign_id: &row.foreign_id,
        timestamp: chrono::Utc::now(),
        metadata: &row.metadata,
        trace: b"",
    })
}
