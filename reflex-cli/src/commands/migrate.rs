use anyhow::{Context, Result, anyhow};
use chrono::SecondsFormat;
use reflex_migrations::{Migration, State, Status};
use serde::Serialize;
use sqlx::{MySqlPool, Pool};

use crate::{
    args::MigrateArgs,
    database::{AnyPool, Database, with_pool},
    exit::chain,
    output::Output,
    place::Access,
    table::TextTable,
};

/// Creates or upgrades the default tables, or tells where they stand.
pub(crate) async fn run(args: MigrateArgs, output: &mut Output) -> Result<()> {
    let access = if args.status { Access::Read } else { Access::Create };
    let database = Database::connect(&args.database.database_url, access).await?;
    if args.status {
        let status = with_pool!(database, pool => status(pool))?;
        return print_status(&status, args.json, output).await;
    }
    let applied = with_pool!(database, pool => up(pool))?;
    print_applied(&applied, args.json, output).await?;
    if let AnyPool::MySql(pool) = &database.pool {
        output.flush().await?;
        let advice = let_readers_see_writers(pool).await.context("look for the plugin `metadata_lock_info`");
        print_advice(advice.map_err(|error| database.place.name_in(error))?);
    }
    Ok(())
}

async fn up<D: reflex_migrations::Dialect>(pool: &Pool<D>) -> Result<Vec<&'static Migration>> {
    Ok(reflex_migrations::up(pool).await?)
}

async fn status<D: reflex_migrations::Dialect>(pool: &Pool<D>) -> Result<Vec<Status>> {
    Ok(reflex_migrations::status(pool).await?)
}

#[derive(Serialize)]
struct Line<'a> {
    version: i64,
    name: &'a str,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_at: Option<String>,
}

impl<'a> Line<'a> {
    fn new(version: i64, name: &'a str, state: State) -> Self {
        let applied_at = match state {
            State::Applied(at) => Some(at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            _ => None,
        };
        let state = if applied_at.is_some() { "applied".to_owned() } else { state.to_string() };
        Self { version, name, state, applied_at }
    }
}

async fn print_status(status: &[Status], json: bool, output: &mut Output) -> Result<()> {
    if json {
        for status in status {
            output.json(&Line::new(status.version(), status.name(), status.state())).await?;
        }
        return Ok(());
    }
    let mut table = TextTable::new(["version", "name", "state"]).right([0]);
    for status in status {
        table.row([status.version().to_string(), status.name().to_owned(), status.state().to_string()]);
    }
    output.line(table).await
}

async fn print_applied(applied: &[&Migration], json: bool, output: &mut Output) -> Result<()> {
    for migration in applied {
        let (version, name) = (migration.version(), migration.name());
        if json {
            output.json(&Line { version, name, state: "applied".to_owned(), applied_at: None }).await?;
        } else {
            output.line(format_args!("applied {version} {name}")).await?;
        }
    }
    if applied.is_empty() && !json {
        output.line("everything is up to date").await?;
    }
    Ok(())
}

/// On MariaDB, installs the plugin that shows who holds metadata locks; returns what is left to do by an administrator.
async fn let_readers_see_writers(pool: &MySqlPool) -> Result<Option<String>> {
    let version: String = sqlx::query_scalar("select version()").fetch_one(pool).await?;
    if !version.contains("MariaDB") {
        return Ok(None);
    }
    let installed = "select count(*) from information_schema.plugins
        where plugin_name = 'METADATA_LOCK_INFO' and plugin_status = 'ACTIVE'";
    let installed: i64 = sqlx::query_scalar(installed).fetch_one(pool).await?;
    if installed > 0 {
        return Ok(None);
    }
    match sqlx::raw_sql("install soname 'metadata_lock_info'").execute(pool).await {
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(format!(
            "readers cannot see who is writing, because the plugin `metadata_lock_info` could not be installed ({}). \
             Let an administrator run this once:\n  install soname 'metadata_lock_info';\nUntil then they insert a \
             placeholder wherever a transaction was rolled back.",
            chain(anyhow!(error).chain())
        ))),
    }
}

#[expect(clippy::print_stderr, reason = "stdout is for the result")]
fn print_advice(advice: Option<String>) {
    if let Some(advice) = advice {
        eprintln!("note: {advice}");
    }
}
