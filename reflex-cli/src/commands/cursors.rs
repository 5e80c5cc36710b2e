use anyhow::{Context, Result, anyhow};
use chrono::SecondsFormat;
use reflex_core::{Cursor, CursorStore};
use reflex_sql::{CursorsTable, Dialect, StoredCursor};
use serde::Serialize;
use sqlx::Pool;

use crate::{
    args::{CursorsArgs, CursorsCommand},
    database::{Database, with_pool},
    exit::{self, Absent, Usage},
    output::Output,
    place::Access,
    table::TextTable,
};

/// Shows or moves cursors.
pub(crate) async fn run(command: CursorsCommand, output: &mut Output) -> Result<()> {
    let database = Database::connect(&at(&command).database.database_url, access(&command)).await?;
    with_pool!(database, pool => administer(pool, &command, output))
}

fn at(command: &CursorsCommand) -> &CursorsArgs {
    match command {
        CursorsCommand::List { at }
        | CursorsCommand::Get { at, .. }
        | CursorsCommand::Set { at, .. }
        | CursorsCommand::Delete { at, .. } => at,
    }
}

fn access(command: &CursorsCommand) -> Access {
    match command {
        CursorsCommand::List { .. } | CursorsCommand::Get { .. } => Access::Read,
        CursorsCommand::Set { .. } | CursorsCommand::Delete { .. } => Access::Write,
    }
}

async fn administer<D: Dialect>(pool: &Pool<D>, command: &CursorsCommand, output: &mut Output) -> Result<()> {
    let table = CursorsTable::open(pool, at(command).name.as_str()).await?;
    let json = at(command).json;
    match command {
        CursorsCommand::List { .. } => list(&table.list().await?, json, output).await,
        CursorsCommand::Get { consumer, .. } => get(&table, consumer, json, output).await,
        CursorsCommand::Set { consumer, cursor, force, .. } => {
            let cursor = Cursor::from(cursor.as_str());
            set(&table, consumer, &cursor, *force).await?;
            print(consumer, &cursor, json, output).await
        }
        CursorsCommand::Delete { consumer, .. } => delete(&table, consumer, json, output).await,
    }
}

#[derive(Serialize)]
struct Line<'a> {
    consumer: &'a str,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
}

async fn list(stored: &[StoredCursor], json: bool, output: &mut Output) -> Result<()> {
    let updated_at =
        |cursor: &StoredCursor| cursor.updated_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
    if json {
        for cursor in stored {
            let line =
                Line { consumer: &cursor.consumer, cursor: cursor.cursor.to_string(), updated_at: updated_at(cursor) };
            output.json(&line).await?;
        }
        return Ok(());
    }
    let mut table = TextTable::new(["consumer", "cursor", "updated at"]).right([1]);
    for cursor in stored {
        let updated_at = updated_at(cursor).unwrap_or_else(|| "-".to_owned());
        table.row([cursor.consumer.clone(), cursor.cursor.to_string(), updated_at]);
    }
    output.line(table).await
}

async fn get<D: Dialect>(table: &CursorsTable<D>, consumer: &str, json: bool, output: &mut Output) -> Result<()> {
    let Some(cursor) = table.get(consumer).await? else {
        return Err(no_cursor(consumer).into());
    };
    if json { print(consumer, &cursor, json, output).await } else { output.line(cursor).await }
}

pub(super) fn no_cursor(consumer: &str) -> Absent {
    Absent(format!("consumer `{consumer}` has no cursor: `reflex cursors list` shows those that have"))
}

async fn set<D: Dialect>(table: &CursorsTable<D>, consumer: &str, cursor: &Cursor, force: bool) -> Result<()> {
    if force {
        return force_set(table, consumer, cursor).await;
    }
    match table.set(consumer, cursor).await {
        Err(error) if error.is_invalid() => Err(Usage(exit::chain(anyhow!(error).chain())).into()),
        // It is where it was asked to be.
        Err(error) if error.is_cursor_unchanged() => Ok(()),
        Err(error) if error.is_cursor_backwards() => {
            Err(error).context("nothing was changed, because a cursor only moves back with --force")
        }
        result => Ok(result?),
    }
}

async fn force_set<D: Dialect>(table: &CursorsTable<D>, consumer: &str, cursor: &Cursor) -> Result<()> {
    match table.force_set(consumer, cursor).await {
        // Whatever else goes wrong with a table that could be opened comes from the database.
        Err(error) if cursor.as_i64().is_none() && error.as_database().is_none() => {
            Err(Usage(error.to_string()).into())
        }
        result => Ok(result?),
    }
}

async fn print(consumer: &str, cursor: &Cursor, json: bool, output: &mut Output) -> Result<()> {
    if json {
        output.json(&Line { consumer, cursor: cursor.to_string(), updated_at: None }).await
    } else {
        output.line(format_args!("the cursor of consumer `{consumer}` is {cursor}")).await
    }
}

async fn delete<D: Dialect>(table: &CursorsTable<D>, consumer: &str, json: bool, output: &mut Output) -> Result<()> {
    if !table.delete(consumer).await? {
        return Err(no_cursor(consumer).into());
    }
    if json {
        output.json(&serde_json::json!({ "consumer": consumer, "deleted": true })).await
    } else {
        output.line(format_args!("deleted the cursor of consumer `{consumer}`")).await
    }
}
