use super::{ColumnDefinition, DialectName, create_table_with, events};
use crate::{
    Result,
    names::TableName,
    options::{ErrorsNames, ErrorsTableOptions},
};

/// The statements that create an errors table, the events table of its error events unless it only records, and the tables
/// of the letters, their positions and the counted attempts.
///
/// # Errors
///
/// If a name is not a plain identifier.
///
/// # Examples
///
/// ```
/// use reflex_sql::{DialectName, ErrorsTableOptions, ddl};
///
/// let sql = ddl::errors(DialectName::MySql, &ErrorsTableOptions::new("order_errors"))?;
/// assert!(sql.starts_with("create table `order_errors`") && sql.contains("`order_errors_letters`"));
/// # Ok::<(), reflex_sql::Error>(())
/// ```
pub fn errors(dialect: DialectName, options: &ErrorsTableOptions) -> Result<String> {
    let (names, types) = (options.names()?, Types::of(dialect));
    let mut statements = vec![types.errors(&names)];
    if let Some(options) = options.events() {
        statements.push(events(dialect, &options)?);
    }
    statements.extend([types.letters(&names.letters), types.positions(&names.positions)]);
    statements.push(types.attempts(&names.attempts));
    Ok(statements.concat())
}

/// What the columns are called in one database.
struct Types {
    dialect: DialectName,
    quote: char,
    id: &'static str,
    key: &'static str,
    long_text: &'static str,
    some_text: &'static str,
    integer: &'static str,
    big: &'static str,
    some_big: &'static str,
    flag: &'static str,
    time: &'static str,
    some_time: &'static str,
    time_now: &'static str,
    metadata: &'static str,
    trace: &'static str,
}

const POSTGRES: Types = Types {
    dialect: DialectName::Postgres,
    quote: '"',
    id: "bigint generated always as identity primary key",
    key: "text not null",
    long_text: "text not null",
    some_text: "text",
    integer: "integer not null",
    big: "bigint not null",
    some_big: "bigint",
    flag: "boolean not null",
    time: "timestamptz not null",
    some_time: "timestamptz",
    time_now: "timestamptz not null default now()",
    metadata: "bytea",
    trace: "bytea",
};

const MYSQL: Types = Types {
    dialect: DialectName::MySql,
    quote: '`',
    id: "bigint not null auto_increment primary key",
    key: "varchar(255) character set utf8mb4 collate utf8mb4_bin not null",
    long_text: "text character set utf8mb4 not null",
    some_text: "text character set utf8mb4",
    integer: "int not null",
    big: "bigint not null",
    some_big: "bigint",
    flag: "boolean not null",
    time: "datetime(6) not null",
    some_time: "datetime(6)",
    time_now: "datetime(6) not null default (utc_timestamp(6))",
    metadata: "longblob",
    trace: "mediumblob",
};

const SQLITE: Types = Types {
    dialect: DialectName::Sqlite,
    quote: '"',
    id: "integer primary key autoincrement",
    key: "text not null",
    long_text: "text not null",
    some_text: "text",
    integer: "integer not null",
    big: "integer not null",
    some_big: "integer",
    flag: "integer not null",
    time: "text not null",
    some_time: "text",
    time_now: "text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    metadata: "blob",
    trace: "blob",
};

impl Types {
    fn of(dialect: DialectName) -> Self {
        match dialect {
            DialectName::Postgres => POSTGRES,
            DialectName::MySql => MYSQL,
            DialectName::Sqlite => SQLITE,
        }
    }

    /// The table of luno/reflex.
    fn errors(&self, names: &ErrorsNames) -> String {
        let quoted = |name: &crate::names::Identifier| name.quoted(self.quote);
        let columns = [
            (quoted(&names.id), self.id),
            (quoted(&names.consumer), self.key),
            (quoted(&names.event_id), self.key),
            (quoted(&names.error), self.long_text),
            (quoted(&names.created_at), self.time_now),
            (quoted(&names.updated_at), self.time_now),
            (quoted(&names.status), self.integer),
        ];
        self.create(&names.table, &columns, &[format!("unique ({}, {})", columns[1].0, columns[2].0)])
    }

    fn letters(&self, table: &TableName) -> String {
        let columns = self.columns(&[
            ("consumer", self.key),
            ("position", self.big),
            ("event_id", self.key),
            ("error_id", self.big),
            ("foreign_id", self.key),
            ("event_type", self.integer),
            ("event_timestamp", self.time),
            ("metadata", self.metadata),
            ("trace", self.trace),
            ("error", self.long_text),
            ("parked", self.flag),
            ("redrives", self.integer),
            ("last_error", self.some_text),
            ("requested", self.flag),
            ("claim", self.some_big),
            ("claimed_until", self.some_time),
            ("created_at", self.time_now),
        ]);
        let keys = [self.key(&["consumer", "position"]), self.unique(&["consumer", "event_id"])];
        let indexes = [["consumer", "foreign_id", "position"], ["consumer", "requested", "position"]];
        if self.dialect == DialectName::MySql {
            let indexes = indexes.map(|columns| format!("index ({})", self.list(&columns)));
            return self.create(table, &columns, &[keys, indexes].concat());
        }
        let create = self.create(table, &columns, &keys);
        create + &indexes.map(|columns| self.index(table, &columns)).concat()
    }

    fn positions(&self, table: &TableName) -> String {
        let columns = self.columns(&[("consumer", self.key), ("last_position", self.big)]);
        self.create(table, &columns, &[self.key(&["consumer"])])
    }

    fn attempts(&self, table: &TableName) -> String {
        let columns = self.columns(&[
            ("consumer", self.key),
            ("event_id", self.key),
            ("attempts", self.big),
            ("updated_at", self.time_now),
        ]);
        self.create(table, &columns, &[self.key(&["consumer", "event_id"])])
    }

    fn columns(&self, columns: &[(&str, &'static str)]) -> Vec<ColumnDefinition> {
        columns.iter().map(|(name, definition)| (self.quoted(name), *definition)).collect()
    }

    fn create(&self, table: &TableName, columns: &[ColumnDefinition], keys: &[String]) -> String {
        let suffix = if self.dialect == DialectName::MySql { " engine=InnoDB" } else { "" };
        create_table_with(&table.quoted(self.quote), columns, keys, suffix)
    }

    fn key(&self, columns: &[&str]) -> String {
        format!("primary key ({})", self.list(columns))
    }

    fn unique(&self, columns: &[&str]) -> String {
        format!("unique ({})", self.list(columns))
    }

    /// A statement of its own. In SQLite the schema stands in front of the index, in Postgres nobody names it.
    fn index(&self, table: &TableName, columns: &[&str]) -> String {
        let on = self.list(columns);
        if self.dialect == DialectName::Postgres {
            return format!("create index on {} ({on});\n", table.quoted(self.quote));
        }
        let schema = table.schema().map(|schema| format!("{}.", self.quoted(schema))).unwrap_or_default();
        let name = self.quoted(&format!("{}_{}", table.table(), columns[1]));
        format!("create index {schema}{name} on {} ({on});\n", self.quoted(table.table()))
    }

    fn list(&self, columns: &[&str]) -> String {
        columns.iter().map(|column| self.quoted(column)).collect::<Vec<_>>().join(", ")
    }

    fn quoted(&self, name: &str) -> String {
        format!("{0}{name}{0}", self.quote)
    }
}
