//! disintegrate: an event store with listeners.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use disintegrate::{Event, EventListener, EventStore, PersistedEvent, StreamQuery, query, serde::json::Json};
use disintegrate_postgres::{PgEventId, PgEventListener, PgEventListenerConfig, PgEventStore};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::{sync::mpsc, time::sleep};

use crate::{BULK, Run, Scale, milliseconds, per_second};

/// Between two looks of a listener that nobody woke, as ours has it.
const POLL: Duration = Duration::from_secs(1);
const QUEUE: usize = 10_000;

/// As many bytes as the metadata of the rows that reflex-bench reads.
#[derive(Clone, Debug, PartialEq, Eq, Event, Serialize, Deserialize)]
enum Order {
    Placed {
        #[id]
        account: String,
        order: usize,
        amount: u32,
        currency: String,
        items: u32,
    },
}

impl Order {
    fn numbered(order: usize) -> Self {
        let account = format!("account-{}", order % 1_000);
        Self::Placed { account, order, amount: 4200, currency: "EUR".to_owned(), items: 3 }
    }
}

/// Tells of each event that it gets.
struct Tell {
    query: StreamQuery<PgEventId, Order>,
    to: mpsc::Sender<()>,
}

#[async_trait]
impl EventListener<PgEventId, Order> for Tell {
    type Error = Infallible;

    fn id(&self) -> &'static str {
        "tell"
    }

    fn query(&self) -> &StreamQuery<PgEventId, Order> {
        &self.query
    }

    async fn handle(&self, _event: PersistedEvent<PgEventId, Order>) -> Result<(), Infallible> {
        // Nobody waits for it once the run is over.
        let _ = self.to.send(()).await;
        Ok(())
    }
}

pub(crate) async fn run(pool: PgPool, scale: Scale) -> Result<Run> {
    let store = PgEventStore::try_new(pool, Json::<Order>::default()).await?;
    let inserting = Instant::now();
    for bulk in 0..scale.events / BULK {
        let events = (bulk * BULK..(bulk + 1) * BULK).map(Order::numbered).collect();
        store.append_without_validation(events).await?;
    }
    let inserted_per_second = per_second(scale.events, inserting);
    let (to, mut told) = mpsc::channel(QUEUE);
    let config = PgEventListenerConfig::poller(POLL).fetch_size(BULK).with_notifier();
    let listener = PgEventListener::builder(store.clone()).register_listener(Tell { query: query!(Order), to }, config);
    let reading = Instant::now();
    let running = tokio::spawn(listener.start());
    for _ in 0..scale.events {
        told.recv().await.context("the listener ended")?;
    }
    let read_per_second = per_second(scale.events, reading);
    let mut latencies = Vec::new();
    for single in 0..scale.singles {
        sleep(Duration::from_millis(5)).await;
        store.append_without_validation(vec![Order::numbered(single)]).await?;
        let committed = Instant::now();
        told.recv().await.context("the listener ended")?;
        latencies.push(milliseconds(committed));
    }
    running.abort();
    latencies.sort_by(f64::total_cmp);
    Ok(Run { inserted_per_second, read_per_second, latencies })
}
