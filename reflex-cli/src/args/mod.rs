//! The command line. What is written here is what `--help` prints.

mod cursors;
mod demo;
mod errors;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

pub(crate) use self::{
    cursors::{CursorsArgs, CursorsCommand},
    demo::DemoArgs,
    errors::{ErrorsArgs, ErrorsCommand, Which},
};

/// Streams of events in SQL tables: write them, follow them, see how far their consumers are.
///
/// Start with `reflex demo` inside any git repository: it needs no database and no configuration.
#[derive(Debug, Parser)]
#[command(name = "reflex", version, arg_required_else_help = true, verbatim_doc_comment, after_long_help = CONVENTIONS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const CONVENTIONS: &str = "\
Databases:
  postgres://user:password@host:5432/database
  mysql://user:password@host:3306/database     (MariaDB too, also as mariadb://)
  sqlite:path/to/file.db

Output is for people; with --json it is one JSON object per line.
Logs go to stderr, at the level of RUST_LOG (default: warn).

Exit codes:
  0    what was asked has happened
  1    it failed
  2    the command line is wrong
  3    `reflex lag` found a consumer past a limit, or with a limit one that is ahead of the table or unreadable
  130  after Ctrl-C; 143 after SIGTERM

A demo that serves, with `reflex demo --serve`, goes on until Ctrl-C or SIGTERM: either ends it with 0 once the
results are printed.";

/// Reads the command line of this process, and ends it if that is wrong or only asks for help.
pub(crate) fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| with_tip(error).exit())
}

/// Tells of the variable that stands for a missing option.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(arguments)) => arguments.iter().any(|name| name.starts_with("--database-url")),
        _ => false,
    };
    if missing && error.kind() == ErrorKind::MissingRequiredArgument {
        let tip = "the variable DATABASE_URL can name the database too".to_owned();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Migrate(MigrateArgs),
    Schema(SchemaArgs),
    Import(ImportArgs),
    Insert(InsertArgs),
    Tail(TailArgs),
    #[command(subcommand)]
    Cursors(CursorsCommand),
    #[command(subcommand)]
    Errors(ErrorsCommand),
    Lag(LagArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// The database: postgres://…, mysql://…, mariadb://… or sqlite:FILE.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsTableArgs {
    /// The events table.
    #[arg(long = "table", value_name = "TABLE", default_value = "events")]
    pub(crate) name: String,
}

/// Creates or upgrades the default tables: `events`, `cursors`, `consumer_errors` and what belongs to it.
///
/// Nothing happens if they are up to date. A table of one of the names that was made by somebody else is left alone, with an
/// error. A missing SQLite file is created.
///
/// On MariaDB the plugin `metadata_lock_info` lets readers see who is writing. It is installed if the user may do that;
/// otherwise the statement for an administrator is printed.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex migrate --database-url sqlite:events.db
  reflex migrate --database-url postgres://localhost/shop --status"
)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Only tells what is applied.
    #[arg(long)]
    pub(crate) status: bool,
    /// Prints one JSON object per migration.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints the statements that create tables of any names.
///
/// For tables with other names than the default ones, and for those who use a migration tool of their own.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex schema --dialect postgres
  reflex schema --dialect mysql --events orders_events --cursors orders_cursors
  reflex schema --dialect sqlite | sqlite3 events.db"
)]
pub(crate) struct SchemaArgs {
    /// The kind of database.
    #[arg(long)]
    pub(crate) dialect: Dialect,
    /// The name of the events table.
    #[arg(long, value_name = "NAME", default_value = "events")]
    pub(crate) events: String,
    /// The name of the cursors table.
    #[arg(long, value_name = "NAME", default_value = "cursors")]
    pub(crate) cursors: String,
    /// The name of the errors table, from which those of its companions are made.
    #[arg(long, value_name = "NAME", default_value = "consumer_errors")]
    pub(crate) errors: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Dialect {
    #[value(alias = "postgresql")]
    Postgres,
    /// MariaDB too.
    #[value(alias = "mariadb")]
    Mysql,
    Sqlite,
}

/// Inserts the events of an NDJSON file.
///
/// Each line is an object as `reflex tail --json` prints it:
///
///   {"type":1,"foreign_id":"order-12","timestamp":"2026-01-31T12:00:00Z","metadata":{"amount":3}}
///
/// `type` and `foreign_id` are required. Without `timestamp` the database's clock decides. `metadata` is any JSON value; a
/// string is taken as its text, without quotes, and null as none. `metadata_base64` holds bytes of any kind and wins over
/// `metadata`; `trace_base64` holds the trace context. `id` is ignored, because the database gives a new one. Empty lines
/// are passed over.
///
/// Events are inserted in the order of the lines, in transactions of up to --batch-size events. If a line cannot be read,
/// nothing of its transaction is inserted, and the error says where it is, how many events were inserted before and how to
/// go on.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex import events.ndjson --database-url sqlite:events.db
  reflex import --skip-lines 4000 events.ndjson --database-url sqlite:events.db
  reflex tail --json --to-head --database-url sqlite:old.db | reflex import - --database-url postgres://localhost/shop"
)]
pub(crate) struct ImportArgs {
    /// The file, or - for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) table: EventsTableArgs,
    /// Passes over the first N lines, for going on after an error.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) skip_lines: u64,
    /// The most events in one transaction.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch_size: u32,
    /// Prints the result as one JSON object: {"imported":…,"lines":…}.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Inserts one event.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex insert --type 1 --foreign-id order-12 --database-url sqlite:events.db
  reflex insert --type 2 --foreign-id order-12 --metadata '{\"amount\":3}' --database-url sqlite:events.db"
)]
pub(crate) struct InsertArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) table: EventsTableArgs,
    /// What kind of thing happened, as an integer.
    #[arg(long = "type", value_name = "N", allow_negative_numbers = true)]
    pub(crate) event_type: i32,
    /// The id of the thing that it happened to.
    #[arg(long, value_name = "ID")]
    pub(crate) foreign_id: String,
    /// Anything else, as text; JSON is usual.
    #[arg(long, value_name = "TEXT", conflicts_with = "metadata_file")]
    pub(crate) metadata: Option<String>,
    /// Anything else, as the bytes of a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// When it happened, for example 2026-01-31T12:00:00Z; default: now, by the database's clock.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) timestamp: Option<DateTime<Utc>>,
    /// Prints the result as one JSON object: {"inserted":1}.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints events in the order of their ids, and follows the table.
///
/// No id is passed over as long as its event may still be committed: none is left out and none comes out of order, whatever
/// is being written at the same time. It goes on until Ctrl-C, or with --to-head until the last event there is.
///
/// With --json an event is an object with `id` (a string), `type`, `foreign_id`, `timestamp` (RFC 3339, UTC) and `metadata`:
/// the JSON value if it is JSON, otherwise a string if it is UTF-8. Where that does not tell the exact bytes,
/// `metadata_base64` does, instead of `metadata` or beside it. `trace_base64` is there if the event has a trace context.
/// `reflex import` reads the same form.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex tail --database-url sqlite:events.db
  reflex tail --from-head --json --database-url postgres://localhost/shop | jq .metadata
  reflex tail --after 4711 --to-head --database-url sqlite:events.db"
)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) table: EventsTableArgs,
    /// Starts after the event with this id; default: at the beginning.
    #[arg(long, value_name = "ID", conflicts_with = "from_head", allow_negative_numbers = true)]
    pub(crate) after: Option<i64>,
    /// Starts with events that are committed from here on.
    #[arg(long)]
    pub(crate) from_head: bool,
    /// Ends at the last event.
    #[arg(long)]
    pub(crate) to_head: bool,
    /// Prints one JSON object per event.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tells how far consumers are behind.
///
/// Per consumer: its cursor, the head of the table (its highest committed id), how many events come after the cursor, and
/// the age of the oldest of them. Events are counted, not ids, which have gaps; counting takes time in proportion to the
/// longest backlog. The state is at head, behind, or blocked: ids right after the cursor are missing, and the sessions that
/// are named may still write them.
///
/// A cursor can be ahead of the table, higher than every id that the table ever had, after a restore for example. The
/// consumer would fail. Such a line is marked; with --json `ahead` is true, and how far it is behind is null.
///
/// The timestamp of the oldest event may be no date. Such a line is marked as well; with --json `problem` says why.
///
/// With a limit the exit code is 3 if any consumer is past it, marked as ahead or as unreadable, and the message names each.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex lag --database-url postgres://localhost/shop
  reflex lag billing shipping --max-events 1000 --max-seconds 60 --database-url postgres://localhost/shop
  reflex lag --json --database-url sqlite:events.db | jq -r 'select(.events_behind > 0).consumer'"
)]
pub(crate) struct LagArgs {
    /// The consumers to look at; default: all that have a cursor.
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumers: Vec<String>,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) table: EventsTableArgs,
    /// The cursors table.
    #[arg(long, value_name = "TABLE", default_value = "cursors")]
    pub(crate) cursors_table: String,
    /// The most events that a consumer may be behind.
    #[arg(long, value_name = "N")]
    pub(crate) max_events: Option<u64>,
    /// The most seconds that a consumer may be behind.
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(crate) max_seconds: Option<f64>,
    /// Prints one JSON object per consumer.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|error| format!("{error}; write it like 2026-01-31T12:00:00Z"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds >= 0.0 => Ok(seconds),
        _ => Err("not a number of seconds, such as 60 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
        }
    }
}
