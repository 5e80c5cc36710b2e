use std::collections::HashSet;

use anyhow::Result;
use reflex_sql::{CursorsTableOptions, DialectName, ErrorsTableOptions, EventsTableOptions, ddl};

use crate::{
    args::{Dialect, SchemaArgs},
    exit::Usage,
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
    let all = [events, cursors, errors];
    if let Some(table) = repeated(&all.concat(), args.dialect) {
        let problem =
            format!("two tables would have the name {table}: give each of --events, --cursors and --errors another");
        return Err(Usage(problem).into());
    }
    for statements in all {
        output.line(statements.trim_end()).await?;
    }
    Ok(())
}

/// A table that more than one statement creates. The errors table has companions, with names made from its own.
fn repeated(statements: &str, dialect: Dialect) -> Option<&str> {
    let names = statements.lines().filter_map(|line| line.strip_prefix("create table ")?.split(' ').next());
    let mut seen = HashSet::new();
    let mut names = names.filter(move |name| {
        // SQLite takes names that differ in case for the same.
        let same = if matches!(dialect, Dialect::Sqlite) { name.to_lowercase() } else { (*name).to_owned() };
        !seen.insert(same)
    });
    names.next()
}
