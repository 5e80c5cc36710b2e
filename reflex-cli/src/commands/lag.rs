use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use reflex_sql::{CursorsTable, Dialect, EventsTable, StoredCursor};
use serde::Serialize;
use sqlx::Pool;

use crate::{
    args::LagArgs,
    commands::cursors::no_cursor,
    database::{Database, with_pool},
    exit::{OutputClosed, PastLimit, chain},
    output::Output,
    place::Access,
    table::{TextTable, counted},
};

/// Tells how far consumers are behind, and fails if one is past a limit.
pub(crate) async fn run(args: LagArgs, output: &mut Output) -> Result<()> {
    let database = Database::connect(&args.database.database_url, Access::Read).await?;
    let lags = with_pool!(database, pool => measure(pool, &args))?;
    match print(&lags, args.json, output).await {
        // The exit code is told to somebody else than the output.
        Err(error) if error.is::<OutputClosed>() => {}
        result => result?,
    }
    let past: Vec<_> = lags.iter().filter_map(|lag| lag.past(args.max_events, args.max_seconds)).collect();
    if past.is_empty() { Ok(()) } else { Err(PastLimit(past.join("; ")).into()) }
}

#[derive(Debug, Serialize)]
struct Lag {
    consumer: String,
    cursor: String,
    head: String,
    /// None if the cursor is ahead, or an event is unreadable.
    events_behind: Option<u64>,
    /// As `events_behind`.
    seconds_behind: Option<f64>,
    /// Whether the cursor is higher than every id that the table ever had, so that nothing is delivered.
    ahead: bool,
    state: State,
    /// The sessions that may still write ids that are missing right after the cursor.
    blocked_by: Vec<String>,
    /// Why it cannot be told how far the consumer is behind.
    problem: Option<String>,
}

/// What the database tells about a consumer: not whether it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    AtHead,
    Behind,
    Blocked,
    Ahead,
    Unreadable,
}

impl State {
    fn new(events_behind: Option<u64>, blocked_by: &[String], problem: Option<&str>) -> Self {
        match events_behind {
            None if problem.is_some() => Self::Unreadable,
            None => Self::Ahead,
            Some(0) => Self::AtHead,
            Some(_) if blocked_by.is_empty() => Self::Behind,
            Some(_) => Self::Blocked,
        }
    }
}

impl Lag {
    /// The state, as a person reads it.
    fn state(&self) -> String {
        match self.state {
            State::AtHead => "at head".to_owned(),
            State::Behind => "behind".to_owned(),
            State::Blocked => format!("blocked by {}", self.blocked_by.join("; ")),
            State::Ahead => "ahead of the table".to_owned(),
            State::Unreadable => format!("unreadable: {}", self.problem.as_deref().unwrap_or("unknown")),
        }
    }

    /// Says in which way it is past a limit.
    fn past(&self, max_events: Option<u64>, max_seconds: Option<f64>) -> Option<String> {
        let mut behind = Vec::new();
        if let (Some(max), Some(events)) = (max_events, self.events_behind)
            && events > max
        {
            behind.push(format!("{} behind, {max} allowed", counted(events, "event")));
        }
        if let (Some(max), Some(seconds)) = (max_seconds, self.seconds_behind)
            && seconds > max
        {
            behind.push(format!("{seconds:.1} s behind, {max} s allowed"));
        }
        if max_events.is_none() && max_seconds.is_none() {
            return None;
        }
        if self.ahead {
            behind.push(format!("ahead of the table: its cursor is {}, the highest id is {}", self.cursor, self.head));
        }
        if let Some(problem) = &self.problem {
            behind.push(format!("at an event that cannot be read: {problem}"));
        }
        (!behind.is_empty()).then(|| format!("consumer `{}` is {}", self.consumer, behind.join(" and ")))
    }
}

async fn measure<D: Dialect>(pool: &Pool<D>, args: &LagArgs) -> Result<Vec<Lag>> {
    let events = EventsTable::open(pool, args.table.name.as_str()).await?;
    let cursors = CursorsTable::open(pool, args.cursors_table.as_str()).await?;
    let stored = chosen(cursors.list().await?, &args.consumers)?;
    let mut lags = Vec::new();
    for cursor in stored {
        let consumer = cursor.consumer.clone();
        lags.push(lag(&events, cursor).await.with_context(|| format!("measure the lag of consumer `{consumer}`"))?);
    }
    Ok(lags)
}

/// The cursors of the consumers that are asked for, in that order; all if none is.
fn chosen(stored: Vec<StoredCursor>, consumers: &[String]) -> Result<Vec<StoredCursor>> {
    if consumers.is_empty() {
        return Ok(stored);
    }
    let mut chosen = Vec::new();
    for consumer in consumers {
        match stored.iter().find(|cursor| cursor.consumer == *consumer) {
            Some(cursor) => chosen.push(cursor.clone()),
            None => return Err(no_cursor(consumer).into()),
        }
    }
    Ok(chosen)
}

async fn lag<D: Dialect>(events: &EventsTable<D>, stored: StoredCursor) -> Result<Lag> {
    let (backlog, problem) = match events.backlog(Some(&stored.cursor)).await {
        Err(error) if error.is_cursor_ahead() => (None, None),
        Err(error) if error.is_unreadable() => (None, Some(chain(anyhow::Error::from(error).chain()))),
        backlog => (Some(backlog?), None),
    };
    let behind = backlog.as_ref().is_some_and(|backlog| backlog.events > 0);
    let blocked_by = if behind { events.blocking(Some(&stored.cursor)).await? } else { Vec::new() };
    // Read afterwards, so that it is not below what was counted.
    let head = events.head().await?;
    let age = |oldest: DateTime<Utc>| (Utc::now() - oldest).as_seconds_f64().max(0.0);
    let events_behind = backlog.as_ref().map(|backlog| backlog.events);
    let state = State::new(events_behind, &blocked_by, problem.as_deref());
    Ok(Lag {
        consumer: stored.consumer,
        cursor: stored.cursor.to_string(),
        head: head.unwrap_or(0).to_string(),
        events_behind,
        seconds_behind: backlog.as_ref().map(|backlog| backlog.oldest.map_or(0.0, age)),
        ahead: state == State::Ahead,
        state,
        blocked_by,
        problem,
    })
}

async fn print(lags: &[Lag], json: bool, output: &mut Output) -> Result<()> {
    if json {
        for lag in lags {
            output.json(lag).await?;
        }
    } else {
        let header = ["consumer", "cursor", "head", "events behind", "seconds behind", "state"];
        let mut table = TextTable::new(header).right(1..=4);
        for lag in lags {
            let events = lag.events_behind.map_or_else(|| "-".to_owned(), |events| events.to_string());
            let seconds = lag.seconds_behind.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
            table.row([lag.consumer.clone(), lag.cursor.clone(), lag.head.clone(), events, seconds, lag.state()]);
        }
        output.line(table).await?;
    }
    output.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_consumer_back_is_named() {
        let session = ["session 7".to_owned()];
        assert_eq!(State::new(Some(3), &session, None), State::Blocked);
        assert_eq!(State::new(Some(3), &[], None), State::Behind);
        assert_eq!(State::new(Some(0), &[], None), State::AtHead);
        assert_eq!(State::new(None, &[], None), State::Ahead);
        assert_eq!(State::new(None, &[], Some("no date")), State::Unreadable);
    }

    #[test]
    fn a_limit_is_the_most_that_is_allowed() {
        let lag = Lag {
            consumer: "billing".into(),
            cursor: "1".into(),
            head: "3".into(),
            events_behind: Some(2),
            seconds_behind: Some(1.5),
            ahead: false,
            state: State::Behind,
            blocked_by: Vec::new(),
            problem: None,
        };
        assert_eq!(lag.past(None, None), None);
        assert_eq!(lag.past(Some(2), Some(1.5)), None);
        assert_eq!(lag.past(Some(1), None).unwrap(), "consumer `billing` is 2 events behind, 1 allowed");
        let both = "consumer `billing` is 2 events behind, 0 allowed and 1.5 s behind, 1 s allowed";
        assert_eq!(lag.past(Some(0), Some(1.0)).unwrap(), both);
    }
}
