//! What the demo shows at its end.

use std::fmt;

use anyhow::Result;
use chrono::Utc;
use reflex_core::{Cursor, CursorStore};
use serde::Serialize;
use sqlx::{FromRow, Row, sqlite::SqliteRow};

use super::{Demo, consumers::NAMES, data::Data};
use crate::table::{TextTable, counted, printable, shortened};

/// How many authors are shown to people; `--json` has all.
const TOP: usize = 10;
/// How many characters of an author's name are shown to people; `--json` has all.
const AUTHOR_WIDTH: usize = 40;

/// The results, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    imported: u64,
    events: i64,
    events_per_second: f64,
    seconds: f64,
    consumers: Vec<ConsumerReport>,
    authors: Vec<AuthorTotal>,
    days: Days,
    merges: i64,
    source: String,
    data: String,
}

#[derive(Debug, Serialize)]
struct ConsumerReport {
    name: &'static str,
    cursor: Option<String>,
    events: u64,
    skipped: u64,
    errors: u64,
    lag_seconds: f64,
}

#[derive(Debug, Serialize)]
struct AuthorTotal {
    author: String,
    commits: i64,
    added: i64,
    deleted: i64,
    last_seen: String,
}

impl FromRow<'_, SqliteRow> for AuthorTotal {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            author: row.try_get("author")?,
            commits: row.try_get("commits")?,
            added: row.try_get("added")?,
            deleted: row.try_get("deleted")?,
            last_seen: row.try_get("last_seen")?,
        })
    }
}

#[derive(Debug, Serialize)]
struct Days {
    days: i64,
    commits: i64,
}

impl Report {
    /// Reads the results from the data file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(crate) async fn collect(demo: &Demo, imported: u64, seconds: f64) -> Result<Self> {
        let reader = &demo.data.reader;
        let count = "select count(*) from events";
        let authors = "select author, commits, added, deleted, last_seen from authors order by commits desc, author";
        let days = "select count(*), coalesce(sum(commits), 0) from days";
        let (days, commits) = sqlx::query_as(days).fetch_one(reader).await?;
        let mut consumers = Vec::new();
        for name in NAMES {
            consumers.push(consumer(demo, name).await?);
        }
        Ok(Self {
            imported,
            events: sqlx::query_scalar(count).fetch_one(reader).await?,
            events_per_second: per_second(consumers.iter().map(|consumer| consumer.events).sum(), seconds),
            seconds,
            consumers,
            authors: sqlx::query_as(authors).fetch_all(reader).await?,
            days: Days { days, commits },
            merges: sqlx::query_scalar("select count(*) from merges").fetch_one(reader).await?,
            source: demo.source.describe(),
            data: demo.data.path.display().to_string(),
        })
    }
}

async fn consumer(demo: &Demo, name: &'static str) -> Result<ConsumerReport> {
    let cursor = demo.data.cursors.get(name).await?;
    let counts = demo.tally.of(name);
    Ok(ConsumerReport {
        name,
        lag_seconds: lag(&demo.data, cursor.as_ref()).await?,
        cursor: cursor.map(|cursor| cursor.to_string()),
        events: counts.events,
        skipped: counts.skipped,
        errors: counts.errors,
    })
}

/// The age of the oldest event that a consumer has not consumed.
async fn lag(data: &Data, cursor: Option<&Cursor>) -> Result<f64> {
    let oldest = data.events.backlog(cursor).await?.oldest;
    Ok(oldest.map_or(0.0, |oldest| (Utc::now() - oldest).as_seconds_f64().max(0.0)))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(events: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { (events as f64 / seconds).round() } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "imported {} from {}; the stream has {}\n",
            counted(self.imported, "new event"),
            self.source,
            self.events
        )?;
        writeln!(f, "{}", self.authors_table())?;
        if let Some(more) = self.authors.len().checked_sub(TOP).filter(|&more| more > 0) {
            writeln!(f, " … and {}", counted(more, "more author"))?;
        }
        writeln!(f, "\n{}\n", self.consumers_table())?;
        let commits = counted(self.days.commits, "commit");
        let (days, merges) = (counted(self.days.days, "day"), counted(self.merges, "merge"));
        writeln!(f, "{commits} on {days}, {merges}")?;
        writeln!(f, "{} events/s, {:.2} s for all three consumers", self.events_per_second, self.seconds)?;
        write!(f, "results: authors, days and merges in {}", self.data)
    }
}

impl Report {
    fn authors_table(&self) -> TextTable {
        let mut table = TextTable::new(["author", "commits", "added", "deleted", "last seen"]).right(1..=3);
        for author in self.authors.iter().take(TOP) {
            let numbers = [author.commits, author.added, author.deleted].map(|number| number.to_string());
            let [commits, added, deleted] = numbers;
            table.row([
                shortened(&printable(&author.author), AUTHOR_WIDTH),
                commits,
                added,
                deleted,
                author.last_seen.clone(),
            ]);
        }
        table
    }

    fn consumers_table(&self) -> TextTable {
        let header = ["consumer", "cursor", "events", "skipped", "errors", "lag"];
        let mut table = TextTable::new(header).right(1..=5);
        for consumer in &self.consumers {
            let [events, skipped, errors] =
                [consumer.events, consumer.skipped, consumer.errors].map(|number| number.to_string());
            let cursor = consumer.cursor.clone().unwrap_or_else(|| "-".to_owned());
            let lag = format!("{:.1} s", consumer.lag_seconds);
            table.row([consumer.name.to_owned(), cursor, events, skipped, errors, lag]);
        }
        table
    }
}
