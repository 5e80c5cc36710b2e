//! obix: an outbox with a listener per consumer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use obix::{EventSequence, MailboxConfig, Outbox};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{BULK, Run, Scale, milliseconds, per_second};

/// As many bytes as the metadata of the rows that reflex-bench reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    order: usize,
    account: String,
    amount: u32,
    currency: String,
    items: u32,
}

impl Order {
    fn numbered(order: usize) -> Self {
        Self {
            order,
            account: format!("account-{}", order % 1_000),
            amount: 4200,
            currency: "EUR".to_owned(),
            items: 3,
        }
    }
}

pub(crate) async fn run(pool: PgPool, scale: Scale) -> Result<Run> {
    sqlx::raw_sql(include_str!("obix.sql")).execute(&pool).await?;
    let outbox = Outbox::<Order>::init(&pool, MailboxConfig::builder().build()).await?;
    let inserting = Instant::now();
    for bulk in 0..scale.events / BULK {
        let mut op = outbox.begin_op().await?;
        outbox.publish_all_persisted(&mut op, (bulk * BULK..(bulk + 1) * BULK).map(Order::numbered)).await?;
        op.commit().await?;
    }
    let inserted_per_second = per_second(scale.events, inserting);
    let reading = Instant::now();
    let mut listener = outbox.listen_persisted(EventSequence::BEGIN);
    for _ in 0..scale.events {
        listener.next().await.context("the listener ended")?.ok().context("an event cannot be read")?;
    }
    let read_per_second = per_second(scale.events, reading);
    let mut latencies = Vec::new();
    for single in 0..scale.singles {
        sleep(Duration::from_millis(5)).await;
        let mut op = outbox.begin_op().await?;
        outbox.publish_persisted_in_op(&mut op, Order::numbered(single)).await?;
        op.commit().await?;
        let committed = Instant::now();
        listener.next().await.context("the listener ended")?.ok().context("an event cannot be read")?;
        latencies.push(milliseconds(committed));
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Run { inserted_per_second, read_per_second, latencies })
}
