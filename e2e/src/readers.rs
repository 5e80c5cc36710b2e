//! Readers that follow a table while it is written to, each in a way of its own.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use rand::{RngExt, rngs::StdRng};
use reflex_core::{CursorStore, Event, Spec, StreamFunc, StreamOptions, consumer_fn, run, run_until};
use reflex_testing::collect;
use sqlx::Pool;
use tokio::time::{sleep, timeout};

use crate::{Backend, Goal, Record};

/// How often a reader looks whether it may stop.
const LOOK: Duration = Duration::from_millis(20);

/// So many reads to the head are kept for the check, others forgotten at random.
const MAX_READS: usize = 200;

/// How fast a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// As fast as it can.
    Full,
    /// Slower than the writers, as long as they write.
    Slow,
}

/// Reads one uninterrupted stream.
///
/// # Errors
///
/// If the stream ends, with an error or without.
///
/// # Cancel safety
///
/// Dropping the future closes the stream.
pub async fn follow(source: impl StreamFunc, record: Record, speed: Speed, goal: Goal) -> Result<Record> {
    let options = match record.last() {
        0 => StreamOptions::new(),
        cursor => StreamOptions::new().after(cursor),
    };
    let opened = source.open(options).await?;
    follow_opened(opened.events, record, speed, goal).await
}

async fn follow_opened(
    events: impl futures_util::Stream<Item = reflex_core::Result<Event>>,
    mut record: Record,
    speed: Speed,
    goal: Goal,
) -> Result<Record> {
    let mut events = pin!(events);
    while !goal.is_over(record.last()) {
        match timeout(LOOK, events.next()).await {
            Ok(Some(event)) => record.see(&event?)?,
            Ok(None) => bail!("the stream ended"),
            Err(_nothing) => {}
        }
        if speed == Speed::Slow && !goal.is_set() && record.len().is_multiple_of(5) {
            sleep(Duration::from_millis(3)).await;
        }
    }
    Ok(record)
}

/// Reads one stream from the head, and checks that nothing committed after its opening is before its position.
///
/// # Errors
///
/// If the stream ends, or its position is too far.
///
/// # Cancel safety
///
/// Dropping the future closes the stream.
pub async fn follow_from_head<D: Backend>(source: impl StreamFunc, pool: Pool<D>, goal: Goal) -> Result<Record> {
    let opened = source.open(StreamOptions::new().from_head()).await?;
    let position = opened.position.as_ref().and_then(|position| position.as_i64());
    let position = position.context("a table tells its position")?;
    let passed_over = format!("select count(*) from events where type <> 0 and id <= {position}");
    let before = D::number(&pool, &passed_over).await?;
    let record = follow_opened(opened.events, Record::after(position), Speed::Full, goal).await?;
    let after = D::number(&pool, &passed_over).await?;
    ensure!(before == after, "{} events were committed before position {position} after it was told", after - before);
    Ok(record)
}

/// Reads to the head again and again, each time from a random cursor. Returns what each read saw, and what it had to.
///
/// # Errors
///
/// If a read ends otherwise than at the head.
///
/// # Cancel safety
///
/// Dropping the future closes the stream.
pub async fn to_head_repeatedly<D: Backend>(
    source: impl StreamFunc,
    pool: Pool<D>,
    mut rng: StdRng,
    goal: Goal,
) -> Result<Vec<ToHead>> {
    let mut reads = Vec::new();
    while !goal.is_set() {
        let visible = D::number(&pool, "select coalesce(max(id), 0) from events where type <> 0").await?;
        let after = rng.random_range(0..=visible).max(visible - 5_000);
        let events = collect(&source, StreamOptions::new().after(after)).await?;
        let mut record = Record::after(after);
        events.iter().try_for_each(|event| record.see(event))?;
        if reads.len() == MAX_READS {
            reads.swap_remove(rng.random_range(0..MAX_READS));
        }
        reads.push(ToHead { visible, record });
        sleep(Duration::from_millis(rng.random_range(0..500))).await;
    }
    Ok(reads)
}

/// One read to the head.
#[derive(Clone, Debug)]
pub struct ToHead {
    /// The highest id that was visible before.
    pub visible: i64,
    /// What was read.
    pub record: Record,
}

impl ToHead {
    /// Holds what was seen against everything committed: it is all of it between the cursor and some id that is not below
    /// what was visible before.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn check(&self, committed: &[(i64, i64)]) -> Result<()> {
        let last = self.record.last();
        ensure!(last >= self.visible, "the read ended at {last}, and {} was visible before it", self.visible);
        let up_to = committed.partition_point(|(id, _)| *id <= last);
        self.record.check(&committed[..up_to]).map(drop)
    }
}

/// Runs a consumer with a persistent cursor; stops it or drops it at random, and runs it again.
///
/// What was dropped leaves nothing behind in memory: it runs again with new `cursors`.
///
/// # Errors
///
/// If a run ends otherwise than by its stop.
///
/// # Cancel safety
///
/// Dropping the future stops the consumer.
pub async fn restart_at_random<C: CursorStore>(
    name: String,
    source: impl StreamFunc + Clone,
    cursors: impl Fn() -> C,
    mut rng: StdRng,
    goal: Goal,
) -> Result<Record> {
    let record = Arc::new(Mutex::new(Record::new()));
    let locked = || record.lock().unwrap_or_else(PoisonError::into_inner);
    let spec = || {
        let consumer = consumer_fn(name.as_str(), |event: Event| {
            let seen = locked().see(&event);
            async move { Ok(seen?) }
        });
        Spec::new(source.clone(), cursors(), consumer)
    };
    while !goal.is_over(locked().last()) {
        locked().restart();
        let life = Duration::from_millis(rng.random_range(1..800));
        let over = async {
            while !goal.is_over(locked().last()) {
                sleep(LOOK).await;
            }
        };
        let end = if rng.random_bool(0.5) {
            let Ok(Err(end)) = timeout(life, run(&mut spec())).await else { continue };
            end
        } else {
            let Err(end) = run_until(&mut spec(), async { drop(timeout(life, over).await) }).await;
            end
        };
        ensure!(end.is_stopped(), "{:#}", anyhow::Error::from(end));
    }
    Ok(locked().clone())
}
