use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use reflex_core::{Cursor, Selection};
use reflex_sql::{Dialect, ErrorsTable, StoredError, StoredLetter};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Pool;

use crate::{
    args::{ErrorsArgs, ErrorsCommand, Which},
    database::{Database, with_pool},
    exit::Absent,
    ndjson::write_event,
    output::Output,
    place::Access,
    table::{TextTable, counted, printable, shortened},
};

/// The characters of an error that a table shows.
const ERROR_WIDTH: usize = 60;

/// Shows, redrives and discards what was put aside.
pub(crate) async fn run(command: ErrorsCommand, output: &mut Output) -> Result<()> {
    let database = Database::connect(&at(&command).database.database_url, access(&command)).await?;
    with_pool!(database, pool => administer(pool, &command, output))
}

fn at(command: &ErrorsCommand) -> &ErrorsArgs {
    match command {
        ErrorsCommand::List { at, .. }
        | ErrorsCommand::Show { at, .. }
        | ErrorsCommand::Redrive { at, .. }
        | ErrorsCommand::Discard { at, .. } => at,
    }
}

fn access(command: &ErrorsCommand) -> Access {
    match command {
        ErrorsCommand::List { .. } | ErrorsCommand::Show { .. } => Access::Read,
        ErrorsCommand::Redrive { which, .. } | ErrorsCommand::Discard { which, .. } if which.dry_run => Access::Read,
        ErrorsCommand::Redrive { .. } | ErrorsCommand::Discard { .. } => Access::Write,
    }
}

async fn administer<D: Dialect>(pool: &Pool<D>, command: &ErrorsCommand, output: &mut Output) -> Result<()> {
    let errors = ErrorsTable::open(pool, at(command).name.as_str()).await?;
    let json = at(command).json;
    match command {
        ErrorsCommand::List { consumer, history: true, limit, .. } => {
            print_history(&errors.history(consumer.as_deref(), *limit).await?, json, output).await
        }
        ErrorsCommand::List { consumer, limit, .. } => {
            print_letters(&errors.list(consumer.as_deref(), *limit).await?, json, output).await
        }
        ErrorsCommand::Show { consumer, event, .. } => show(&errors, consumer, event, json, output).await,
        ErrorsCommand::Redrive { which, .. } => {
            let what = "redriven by the consumer, with its own code, while it runs";
            tell(which, &redrive(&errors, which).await?, what, json, output).await
        }
        ErrorsCommand::Discard { which, .. } => {
            let what = "left out for good";
            tell(which, &discard(&errors, which).await?, what, json, output).await
        }
    }
}

async fn show<D: Dialect>(
    errors: &ErrorsTable<D>,
    consumer: &str,
    event: &str,
    json: bool,
    output: &mut Output,
) -> Result<()> {
    let Some(stored) = errors.get(consumer, &Cursor::from(event)).await? else {
        let absent = format!("event {event} is not put aside for consumer `{consumer}`");
        return Err(Absent(format!("{absent}: `reflex errors list` shows what is")).into());
    };
    let mut event = Vec::new();
    write_event(&mut event, &stored.letter.event)?;
    let event = String::from_utf8(event).context("an event in JSON is UTF-8")?;
    if json {
        let event = RawValue::from_string(event).context("an event in JSON")?;
        return output.json(&Whole { line: Line::from(&stored), event }).await;
    }
    let line = Line::from(&stored);
    output.line(format_args!("consumer    {}", printable(line.consumer))).await?;
    output.line(format_args!("state       {}", line.state())).await?;
    output.line(format_args!("put aside   {}", line.created_at)).await?;
    output.line(format_args!("redrives    {}", line.redrives)).await?;
    output.line(format_args!("error       {}", printable(line.error))).await?;
    if let Some(error) = line.last_error {
        output.line(format_args!("last error  {}", printable(error))).await?;
    }
    output.line(format_args!("event       {event}")).await
}

/// The events that are meant, after a redrive was requested for them.
async fn redrive<D: Dialect>(errors: &ErrorsTable<D>, which: &Which) -> Result<Vec<StoredLetter>> {
    let (consumer, selection) = (&which.consumer, selection(which));
    if which.dry_run {
        return Ok(errors.select(consumer, &selection).await?);
    }
    Ok(errors.request(consumer, &selection).await?)
}

/// The events that are meant, after they were discarded.
async fn discard<D: Dialect>(errors: &ErrorsTable<D>, which: &Which) -> Result<Vec<StoredLetter>> {
    let (consumer, selection) = (&which.consumer, selection(which));
    if which.dry_run {
        return Ok(errors.select(consumer, &selection).await?);
    }
    Ok(errors.discard(consumer, &selection).await?)
}

/// Prints the events that something happened to, or would happen to, and what that is.
async fn tell(which: &Which, letters: &[StoredLetter], what: &str, json: bool, output: &mut Output) -> Result<()> {
    if letters.is_empty() {
        let absent = format!("no such event is put aside for consumer `{}`", which.consumer);
        return Err(Absent(format!("{absent}: `reflex errors list` shows what is")).into());
    }
    print_letters(letters, json, output).await?;
    if json {
        return Ok(());
    }
    let events = counted(letters.len() as u64, "event");
    let will = if which.dry_run { "would be" } else { "will be" };
    output.line(format_args!("{events} {will} {what}")).await
}

fn selection(which: &Which) -> Selection {
    match (&which.event, &which.foreign_id, which.oldest) {
        (Some(event), ..) => Selection::Event(Cursor::from(event.as_str())),
        (_, Some(foreign_id), _) => Selection::ForeignId(foreign_id.clone()),
        (_, _, Some(oldest)) => Selection::Oldest(oldest),
        (None, None, None) => Selection::All,
    }
}

async fn print_letters(letters: &[StoredLetter], json: bool, output: &mut Output) -> Result<()> {
    if json {
        for stored in letters {
            output.json(&Line::from(stored)).await?;
        }
        return Ok(());
    }
    let mut table =
        TextTable::new(["consumer", "event", "foreign id", "type", "put aside", "redrives", "state", "error"])
            .right([1, 3, 5]);
    for line in letters.iter().map(Line::from) {
        table.row([
            line.consumer.to_owned(),
            line.event_id.clone(),
            line.foreign_id.to_owned(),
            line.event_type.to_string(),
            line.created_at.clone(),
            line.redrives.to_string(),
            line.state().to_owned(),
            shortened(line.last_error.unwrap_or(line.error), ERROR_WIDTH),
        ]);
    }
    output.line(table).await
}

async fn print_history(errors: &[StoredError], json: bool, output: &mut Output) -> Result<()> {
    if json {
        for error in errors {
            output.json(&HistoryLine::from(error)).await?;
        }
        return Ok(());
    }
    let mut table = TextTable::new(["consumer", "event", "put aside", "updated at", "status", "error"]).right([1]);
    for line in errors.iter().map(HistoryLine::from) {
        let error = shortened(line.error, ERROR_WIDTH);
        table.row([line.consumer.to_owned(), line.event_id, line.created_at, line.updated_at, line.status, error]);
    }
    output.line(table).await
}

#[derive(Serialize)]
struct Line<'a> {
    consumer: &'a str,
    event_id: String,
    foreign_id: &'a str,
    #[serde(rename = "type")]
    event_type: i32,
    timestamp: String,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
    created_at: String,
    redrives: u32,
    parked: bool,
    requested: bool,
    claimed: bool,
}

impl<'a> From<&'a StoredLetter> for Line<'a> {
    fn from(stored: &'a StoredLetter) -> Self {
        let event = &stored.letter.event;
        Self {
            consumer: &stored.letter.consumer,
            event_id: event.id().to_string(),
            foreign_id: event.foreign_id(),
            event_type: event.event_type().0,
            timestamp: event.timestamp().to_rfc3339_opts(SecondsFormat::AutoSi, true),
            error: &stored.letter.error,
            last_error: stored.last_error.as_deref(),
            created_at: time(stored.created_at),
            redrives: stored.letter.redrives,
            parked: stored.letter.parked,
            requested: stored.requested,
            claimed: stored.claimed,
        }
    }
}

impl Line<'_> {
    fn state(&self) -> &'static str {
        match (self.claimed, self.requested, self.parked) {
            (true, ..) => "being redriven",
            (_, true, _) => "redrive requested",
            (_, _, true) => "waits behind another",
            _ => "open",
        }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    /// As `reflex tail --json` prints it.
    event: Box<RawValue>,
}

#[derive(Serialize)]
struct HistoryLine<'a> {
    consumer: &'a str,
    event_id: String,
    error: &'a str,
    status: String,
    created_at: String,
    updated_at: String,
}

impl<'a> From<&'a StoredError> for HistoryLine<'a> {
    fn from(error: &'a StoredError) -> Self {
        Self {
            consumer: &error.consumer,
            event_id: error.event_id.to_string(),
            error: &error.error,
            status: error.status.to_string(),
            created_at: time(error.created_at),
            updated_at: time(error.updated_at),
        }
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
