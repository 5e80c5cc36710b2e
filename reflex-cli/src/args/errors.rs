use clap::{ArgGroup, Args, Subcommand};

use super::DatabaseArgs;

/// Shows, redrives and discards events that consumers could not handle.
///
/// A consumer with dead letters puts an event aside that it cannot handle and goes on; if it parks by key, later events of
/// the same foreign id wait behind it. They stay open until they are redriven with success, or discarded.
///
/// A redrive is requested here and done by the consumer itself, with its own code: a running one looks for requests every 10
/// seconds or so, one that is not running does it when it is started. An event that fails again stays open.
#[derive(Debug, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex errors list --database-url sqlite:events.db
  reflex errors show billing 4711 --database-url sqlite:events.db
  reflex errors redrive billing --event 4711 --database-url sqlite:events.db
  reflex errors redrive billing --all --dry-run --database-url sqlite:events.db
  reflex errors discard billing --foreign-id order-12 --database-url sqlite:events.db"
)]
pub(crate) enum ErrorsCommand {
    /// Prints what is put aside, oldest first.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  reflex errors list --database-url sqlite:events.db
  reflex errors list billing --json --database-url sqlite:events.db
  reflex errors list --history --database-url sqlite:events.db"
    )]
    List {
        /// Only those of this consumer.
        consumer: Option<String>,
        /// Prints what was ever put aside, newest first: redriven and discarded events too, and those that a Go service
        /// recorded.
        #[arg(long)]
        history: bool,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
        #[command(flatten)]
        at: ErrorsArgs,
    },
    /// Prints one event that is put aside, with its error and its metadata.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Example:
  reflex errors show billing 4711 --database-url sqlite:events.db"
    )]
    Show {
        /// The name of the consumer.
        consumer: String,
        /// The id of the event.
        #[arg(allow_negative_numbers = true)]
        event: String,
        #[command(flatten)]
        at: ErrorsArgs,
    },
    /// Requests that events are handed to their consumer again, in their order.
    ///
    /// An event that waits behind another one of its foreign id is redriven after that one; alone it is refused. The request is
    /// about what is put aside at this moment: events of the same foreign id that come meanwhile wait for another one.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  reflex errors redrive billing --event 4711 --database-url sqlite:events.db
  reflex errors redrive billing --oldest 10 --dry-run --database-url sqlite:events.db"
    )]
    Redrive {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: ErrorsArgs,
    },
    /// Gives events up: they are never handed to their consumer again.
    ///
    /// What waits behind a discarded event goes on waiting until it is redriven or discarded itself.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  reflex errors discard billing --event 4711 --database-url sqlite:events.db
  reflex errors discard billing --foreign-id order-12 --dry-run --database-url sqlite:events.db"
    )]
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        at: ErrorsArgs,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("selection").required(true))]
pub(crate) struct Which {
    /// The name of the consumer.
    pub(crate) consumer: String,
    /// The event with this id.
    #[arg(long, value_name = "ID", group = "selection", allow_negative_numbers = true)]
    pub(crate) event: Option<String>,
    /// The events of this foreign id.
    #[arg(long, value_name = "FOREIGN_ID", group = "selection")]
    pub(crate) foreign_id: Option<String>,
    /// The N oldest events.
    #[arg(long, value_name = "N", group = "selection", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) oldest: Option<u32>,
    /// All events.
    #[arg(long, group = "selection")]
    pub(crate) all: bool,
    /// Only prints which events are meant.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ErrorsArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// The errors table.
    #[arg(long = "table", value_name = "TABLE", default_value = "consumer_errors")]
    pub(crate) name: String,
    /// Prints one JSON object per event.
    #[arg(long)]
    pub(crate) json: bool,
}
