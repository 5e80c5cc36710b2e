use anyhow::Result;
use reflex_sql::{CursorsTableOptions, DialectName, ErrorsTableOptions, EventsTableOptions, ddl};

use crate::{
    args::{Dialect, SchemaArgs},
    output::Output,
};

/// Prints the statements for all tables.
pub(crate) async fn run(args: &SchemaArgs, output: &mut Output) -> Result<()> {
    let dialect = match args.dialect {
        Dialect::Postgres => DialectName::Postgres,
        Dialect::Mysql => DialectName::MySql,
        Dialect::Sqlite => DialectName::Sqlite,
    };
    let events = ddl::events(dialect, &EventsTableOptions::new(&args.events))?;
    let cursors = ddl::cursors(dialect, &CursorsTableOptions::new(&args.cursors))?;
    let errors = ddl::errors(dialect, &ErrorsTableOptions::new(&args.errors))?;
    for statements in [events, cursors, errors] {
        output.line(statements.trim_end()).await?;
    }
    Ok(())
}
