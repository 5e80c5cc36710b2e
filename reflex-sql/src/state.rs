//! What is told about a stream and a table to those who ask how they are.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use reflex_core::{Blocked, StreamPosition};
use tokio::{sync::watch, time::Instant};

use crate::{Result, dialect::Dialect, table::Table, tail::Status};

/// What the reader of a table knows of the ids that it has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The highest id.
    pub(crate) highest: i64,
    /// The missing ids that hold streams back.
    pub(crate) held: Option<Held>,
}

/// Ids after `after` are missing.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) after: i64,
    pub(crate) since: Instant,
    /// The sessions that may still write them, once somebody has looked.
    pub(crate) by: Vec<String>,
}

/// Up to which id a stream has come; its follower writes it.
pub(crate) type Reached = Arc<AtomicI64>;

/// Where a stream is. It keeps neither the stream nor the reader alive.
pub(crate) fn position_of(
    reached: Reached,
    status: watch::Receiver<Status>,
) -> impl Fn() -> StreamPosition + Send + Sync + 'static {
    move || position(reached.load(Ordering::Relaxed), &status.borrow().seen)
}

fn position(reached: i64, seen: &Seen) -> StreamPosition {
    let position = StreamPosition::behind(u64::try_from(seen.highest.saturating_sub(reached)).unwrap_or(0));
    match &seen.held {
        Some(held) if held.after == reached => {
            position.blocked(Blocked::new(held.after, held.since.elapsed()).by(held.by.iter().cloned()))
        }
        _ => position,
    }
}

/// Who may still write ids that are missing right after `after`, by one look at the database.
pub(crate) async fn blocking<D: Dialect>(table: &Table<D>, after: i64) -> Result<Vec<String>> {
    let mut conn = table.acquire().await?;
    let next = table.read_page(&mut conn, after, 1).await?.ids().next();
    let holders = match next {
        Some(next) if next - 1 > after => holders(table, &mut conn).await?,
        _ => Vec::new(),
    };
    conn.release();
    Ok(holders)
}

async fn holders<D: Dialect>(table: &Table<D>, conn: &mut D::Connection) -> Result<Vec<String>> {
    if !table.sql.mode.proves() {
        return Ok(vec!["a transaction that cannot be seen: gaps are filled with placeholders".to_owned()]);
    }
    let server = table.within("identify the server", D::server(conn, &table.sql)).await?;
    let writers = table.within("find the open writers", D::writers(conn, &table.sql, &server)).await?;
    table.within("name the blocking sessions", D::describe(conn, &writers.active)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(after: i64) -> Seen {
        let by = vec!["session 7".to_owned()];
        Seen { highest: 9, held: Some(Held { after, since: Instant::now(), by }) }
    }

    #[test]
    fn a_stream_is_behind_by_the_ids_that_were_seen() {
        assert_eq!(position(4, &Seen { highest: 9, held: None }), StreamPosition::behind(5));
        assert_eq!(position(9, &Seen { highest: 9, held: None }), StreamPosition::behind(0));
        assert_eq!(position(12, &Seen { highest: 9, held: None }), StreamPosition::behind(0));
    }

    #[test]
    fn a_gap_blocks_those_who_stand_before_it() {
        let blocked = position(4, &held(4)).blocked.unwrap();
        assert_eq!((blocked.after, blocked.by), (4.into(), vec!["session 7".to_owned()]));
        assert_eq!(position(3, &held(4)).blocked, None);
        assert_eq!(position(5, &held(4)).blocked, None);
    }
}
