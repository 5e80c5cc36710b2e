use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result};
use futures_util::stream;
use reflex_core::{BoxEventStream, Error, Event, EventParts, StreamFunc, StreamOptions};
use sqlx::Pool;

use crate::Backend;

/// A reader as one writes it first: it takes what is there after the last id that it saw, and knows nothing of gaps.
///
/// It loses events. The tests use it to see that they would notice.
pub fn naive<D: Backend>(pool: Pool<D>) -> impl StreamFunc<Stream = BoxEventStream> {
    move |options: StreamOptions| {
        let position = options.start_after().and_then(|cursor| cursor.as_i64()).unwrap_or(0);
        let reader = Naive { pool: pool.clone(), position, page: VecDeque::new() };
        async move {
            let events = stream::try_unfold(reader, |mut reader| async move {
                let event = reader.next().await.map_err(|error| Error::stream("read naively", error))?;
                Ok(Some((event, reader)))
            });
            Ok(Box::pin(events) as BoxEventStream)
        }
    }
}

struct Naive<D: Backend> {
    pool: Pool<D>,
    position: i64,
    page: VecDeque<(i64, Option<String>)>,
}

impl<D: Backend> Naive<D> {
    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some((id, foreign_id)) = self.page.pop_front() {
                self.position = id;
                return event(id, foreign_id.as_deref().context("no foreign id")?);
            }
            let after = self.position;
            let sql = format!("select id, foreign_id from events where id > {after} order by id limit 1000");
            self.page = D::rows(&mut *self.pool.acquire().await?, sql).await?.into();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn event(id: i64, foreign_id: &str) -> Result<Event> {
    Ok(Event::from(EventParts {
        id: id.into(),
        event_type: 1.into(),
        foreign_id,
        timestamp: Default::default(),
        metadata: b"",
        trace: b"",
    }))
}
