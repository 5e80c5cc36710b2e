use std::{collections::BTreeMap, fmt::Write};

use anyhow::{Context, Result, ensure};
use reflex_core::{Event, HandlerError};
use reflex_testing::check_effects;
use sqlx::Pool;

use crate::Backend;

/// The tables that [`write_effects`] writes to, with a total of zero for each of so many foreign ids.
///
/// # Errors
///
/// If they cannot be made.
///
/// # Cancel safety
///
/// After the future was dropped the tables are there or not.
pub async fn make_effects<D: Backend>(pool: &Pool<D>, foreign_ids: u64) -> Result<()> {
    let rows: Vec<_> = (1..=foreign_ids).map(|id| format!("({id}, 0, 0)")).collect();
    let sql = format!(
        "create table effects (event_id bigint primary key);
         create table totals (foreign_id bigint primary key, events bigint not null, ids bigint not null);
         insert into totals (foreign_id, events, ids) values {}",
        rows.join(", ")
    );
    Ok(D::run_sql(&mut *pool.acquire().await?, sql).await?)
}

/// What an exactly-once consumer does for a batch: it notes each event, and adds to the totals of the foreign ids, all in one
/// round trip.
///
/// # Errors
///
/// If an event has had its effect before, or the database fails.
///
/// # Cancel safety
///
/// If the future is dropped, roll the transaction back.
pub async fn write_effects<D: Backend>(tx: &mut D::Connection, batch: &[Event]) -> Result<(), HandlerError> {
    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut ids = Vec::with_capacity(batch.len());
    for event in batch {
        let id = event.id().as_i64().ok_or_else(|| HandlerError::new("ids are integers"))?;
        let total = totals.entry(event.foreign_id().parse()?).or_default();
        *total = (total.0 + 1, total.1 + id);
        ids.push(format!("({id})"));
    }
    let mut sql = format!("insert into effects (event_id) values {}", ids.join(", "));
    for (foreign_id, (events, ids)) in totals {
        write!(
            sql,
            "; update totals set events = events + {events}, ids = ids + {ids} where foreign_id = {foreign_id}"
        )?;
    }
    Ok(D::run_sql(tx, sql).await?)
}

/// Holds the effects against the committed events: each had its effect once. Returns how many there are.
///
/// # Errors
///
/// If one had none or several, or the totals are not those of the events.
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
pub async fn check_all_effects<D: Backend>(pool: &Pool<D>) -> Result<usize> {
    let committed = D::events(pool).await?;
    let mut conn = pool.acquire().await?;
    let effects = D::rows(&mut conn, "select event_id from effects".to_owned()).await?;
    let effects: Vec<_> = effects.into_iter().map(|row| row.0).collect();
    let ids: Vec<_> = committed.iter().map(|(id, _)| *id).collect();
    check_effects(&ids, &effects)?;
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (id, foreign_id) in committed {
        let total = expected.entry(foreign_id).or_default();
        *total = (total.0 + 1, total.1 + id);
    }
    for (at, column) in ["events", "ids"].into_iter().enumerate() {
        let sql = format!("select {column}, concat('', foreign_id) from totals where events > 0 order by foreign_id");
        let rows = D::rows(&mut conn, sql).await?;
        ensure!(rows.len() == expected.len(), "{} foreign ids have effects, of {}", rows.len(), expected.len());
        for (total, foreign_id) in rows {
            let foreign_id: i64 = foreign_id.context("it is not null")?.parse()?;
            let expected = expected.get(&foreign_id).with_context(|| format!("nothing happened to {foreign_id}"))?;
            let expected = [expected.0, expected.1][at];
            ensure!(total == expected, "{column} of {foreign_id} are {total}, and should be {expected}");
        }
    }
    Ok(effects.len())
}
