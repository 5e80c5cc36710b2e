use clap::{Args, Subcommand};

use super::DatabaseArgs;

/// Shows and moves the cursors of consumers.
///
/// A cursor is the id of the last event that a consumer has consumed. Stop the consumer before you move or delete its
/// cursor: a running one does not look at it again.
#[derive(Debug, Subcommand)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  reflex cursors list --database-url sqlite:events.db
  reflex cursors get billing --database-url sqlite:events.db
  reflex cursors set billing 4711 --database-url sqlite:events.db
  reflex cursors set billing 0 --force --database-url sqlite:events.db     # consume everything again
  reflex cursors delete billing --database-url sqlite:events.db"
)]
pub(crate) enum CursorsCommand {
    /// Prints all cursors.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Example:
  reflex cursors list --json --database-url sqlite:events.db"
    )]
    List {
        #[command(flatten)]
        at: CursorsArgs,
    },
    /// Prints the cursor of one consumer; fails if it has none.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Example:
  reflex cursors get billing --database-url sqlite:events.db"
    )]
    Get {
        /// The name of the consumer.
        consumer: String,
        #[command(flatten)]
        at: CursorsArgs,
    },
    /// Moves the cursor of one consumer: forward, or with --force anywhere.
    ///
    /// What lies between an old cursor and one that is set further ahead is never delivered to the consumer. What lies
    /// between a cursor that is set back and the old one is delivered again.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  reflex cursors set billing 4711 --database-url sqlite:events.db
  reflex cursors set billing 0 --force --database-url sqlite:events.db"
    )]
    Set {
        /// The name of the consumer.
        consumer: String,
        /// The id of the event that counts as consumed.
        #[arg(allow_negative_numbers = true)]
        cursor: String,
        /// Moves it back as well.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        at: CursorsArgs,
    },
    /// Deletes the cursor of one consumer, which then starts from the beginning; fails if it has none.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Example:
  reflex cursors delete billing --database-url sqlite:events.db"
    )]
    Delete {
        /// The name of the consumer.
        consumer: String,
        #[command(flatten)]
        at: CursorsArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CursorsArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// The cursors table.
    #[arg(long = "table", value_name = "TABLE", default_value = "cursors")]
    pub(crate) name: String,
    /// Prints one JSON object per cursor.
    #[arg(long)]
    pub(crate) json: bool,
}
