//! The statements that create tables, for any names and dialect.
//!
//! The default tables are in the crate `reflex-migrations`. These functions are for tables under other names, and for those
//! who keep their schema with another tool.

mod errors;

pub use self::errors::errors;
use crate::{
    Result,
    options::{CursorsNames, CursorsTableOptions, EventsNames, EventsTableOptions},
};

/// A database, for what needs no connection to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DialectName {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

/// The statement that creates an events table.
///
/// # Errors
///
/// If a name is not a plain identifier.
///
/// # Examples
///
/// ```
/// use reflex_sql::{DialectName, EventsTableOptions, ddl};
///
/// let sql = ddl::events(DialectName::Postgres, &EventsTableOptions::new("order_events"))?;
/// assert!(sql.starts_with("create table \"order_events\""));
/// # Ok::<(), reflex_sql::Error>(())
/// ```
pub fn events(dialect: DialectName, options: &EventsTableOptions) -> Result<String> {
    let names = options.names()?;
    Ok(match dialect {
        DialectName::Postgres => postgres_events(&names),
        DialectName::MySql => mysql_events(&names),
        DialectName::Sqlite => sqlite_events(&names),
    })
}

/// The statement that creates a cursors table, with integer cursors.
///
/// # Errors
///
/// If a name is not a plain identifier.
pub fn cursors(dialect: DialectName, options: &CursorsTableOptions) -> Result<String> {
    let names = options.names()?;
    Ok(match dialect {
        DialectName::Postgres => postgres_cursors(&names),
        DialectName::MySql => mysql_cursors(&names),
        DialectName::Sqlite => sqlite_cursors(&names),
    })
}

/// A column's name between quotes, its type, and what follows it.
type ColumnDefinition = (String, &'static str);

fn create_table(table: &str, columns: &[ColumnDefinition], suffix: &str) -> String {
    create_table_with(table, columns, &[], suffix)
}

fn create_table_with(table: &str, columns: &[ColumnDefinition], keys: &[String], suffix: &str) -> String {
    let width = columns.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let columns = columns.iter().map(|(name, definition)| format!("    {name:width$} {definition}"));
    let lines: Vec<_> = columns.chain(keys.iter().map(|key| format!("    {key}"))).collect();
    format!("create table {table} (\n{}\n){suffix};\n", lines.join(",\n"))
}

fn events_columns(names: &EventsNames, quote: char, definitions: [&'static str; 6]) -> Vec<ColumnDefinition> {
    let columns =
        [&names.id, &names.foreign_id, &names.timestamp, &names.event_type, &names.metadata.name, &names.trace.name];
    columns.map(|column| column.quoted(quote)).into_iter().zip(definitions).collect()
}

fn cursors_columns(names: &CursorsNames, quote: char, definitions: [&'static str; 3]) -> Vec<ColumnDefinition> {
    let columns = [&names.id, &names.cursor, &names.updated_at];
    columns.map(|column| column.quoted(quote)).into_iter().zip(definitions).collect()
}

fn postgres_events(names: &EventsNames) -> String {
    let definitions = [
        "bigint generated always as identity primary key",
        "text not null",
        "timestamptz not null default now()",
        "integer not null",
        "bytea",
        "bytea",
    ];
    create_table(&names.table.quoted('"'), &events_columns(names, '"', definitions), "")
}

fn postgres_cursors(names: &CursorsNames) -> String {
    let definitions = ["text primary key", "bigint not null", "timestamptz not null default now()"];
    create_table(&names.table.quoted('"'), &cursors_columns(names, '"', definitions), "")
}

fn mysql_events(names: &EventsNames) -> String {
    let definitions = [
        "bigint not null auto_increment primary key",
        "varchar(255) character set utf8mb4 collate utf8mb4_bin not null",
        "datetime(6) not null default (utc_timestamp(6))",
        "int not null",
        "longblob",
        "mediumblob",
    ];
    create_table(&names.table.quoted('`'), &events_columns(names, '`', definitions), " engine=InnoDB")
}

fn mysql_cursors(names: &CursorsNames) -> String {
    let definitions = [
        "varchar(255) character set utf8mb4 collate utf8mb4_bin not null primary key",
        "bigint not null",
        "datetime(6) not null default (utc_timestamp(6))",
    ];
    create_table(&names.table.quoted('`'), &cursors_columns(names, '`', definitions), " engine=InnoDB")
}

fn sqlite_events(names: &EventsNames) -> String {
    let definitions = [
        "integer primary key autoincrement",
        "text not null",
        "text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
        "integer not null",
        "blob",
        "blob",
    ];
    create_table(&names.table.quoted('"'), &events_columns(names, '"', definitions), "")
}

fn sqlite_cursors(names: &CursorsNames) -> String {
    let definitions = [
        "text primary key not null",
        "integer not null",
        "text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    ];
    create_table(&names.table.quoted('"'), &cursors_columns(names, '"', definitions), "")
}
