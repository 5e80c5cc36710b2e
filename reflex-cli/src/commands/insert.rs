use anyhow::{Context, Result};
use reflex_core::NewEvent;
use reflex_sql::{Dialect, EventsTable};
use sqlx::Pool;

use crate::{
    args::InsertArgs,
    database::{Database, wake, with_pool},
    exit::Usage,
    output::Output,
    place::Access,
};

/// Inserts the event that the flags describe.
pub(crate) async fn run(args: InsertArgs, output: &mut Output) -> Result<()> {
    let event = event(&args).await?;
    let database = Database::connect(&args.database.database_url, Access::Write).await?;
    with_pool!(database, pool => insert(pool, &args.table.name, event))?;
    if args.json {
        output.json(&serde_json::json!({ "inserted": 1 })).await
    } else {
        output.line(format_args!("inserted 1 event into `{}`", args.table.name)).await
    }
}

async fn event(args: &InsertArgs) -> Result<NewEvent> {
    let mut event = NewEvent::new(&args.foreign_id, args.event_type);
    if let Some(timestamp) = args.timestamp {
        event = event.timestamp(timestamp);
    }
    if let Some(metadata) = &args.metadata {
        event = event.metadata(metadata.as_bytes());
    }
    if let Some(file) = &args.metadata_file {
        let metadata = tokio::fs::read(file).await;
        event = event.metadata(metadata.with_context(|| format!("read --metadata-file {}", file.display()))?);
    }
    event.validate().with_context(|| Usage("--foreign-id and --type do not go together".to_owned()))?;
    Ok(event)
}

async fn insert<D: Dialect>(pool: &Pool<D>, table: &str, event: NewEvent) -> Result<()> {
    let events = EventsTable::open(pool, table).await?;
    let mut tx = pool.begin().await.context("begin a transaction")?;
    let notify = events.insert(&mut tx, event).await?;
    tx.commit().await.context("commit the event: whether it was inserted is not known")?;
    wake(notify).await;
    Ok(())
}
