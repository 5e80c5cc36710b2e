use anyhow::Result;
use reflex_sql::{CursorsTableOptions, DialectName, EventsTableOptions, ddl};

use crate::{
    args::{Dialect, SchemaArgs},
    output::Output,
};

/// Prints the statements for both tables.
pub(crate) async fn run(args: &SchemaArgs, output: &mut Output) -> Result<()> {
    let dialect = match args.dialect {
        Dialect::Postgres => DialectName::Postgres,
        Dialect::Mysql => DialectName::MySql,
        Dialect::Sqlite => DialectName::Sqlite,
    };
    let events = ddl::events(dialect, &EventsTableOptions::new(&args.events))?;
    let cursors = ddl::cursors(dialect, &CursorsTableOptions::new(&args.cursors))?;
    output.line(events.trim_end()).await?;
    output.line(cursors.trim_end()).await
}
