use std::path::PathBuf;

use clap::Args;

/// Turns a git history into a stream of events and runs three consumers over it.
///
/// Each commit of the repository becomes an event in an SQLite file, in one transaction with the note that this commit is
/// known. Then three consumers follow the stream at once, each with a cursor of its own:
///
/// - author-totals: commits, lines added and deleted, and last commit per author. It commits a batch of up to 100 events,
///   its totals and its cursor in one transaction, so the totals are exact even if the demo is killed at any moment.
/// - commits-per-day: takes batches too, without a transaction. After a crash it may see some events twice; its result is
///   right all the same, because it notes the day of each event once.
/// - merges: handles merge commits only, in four lanes at once, the commits of one author in their order.
///
/// The second run goes on where the first one stopped and reports only what is new. The results are the tables
/// authors and merges and the view days in the SQLite file, whose name is printed: look at them with any SQLite tool. Delete
/// the file to start over.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_long_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// The git repository whose history is read; default: the one of the current directory. `git` must be installed.
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub(crate) repo: Option<PathBuf>,
    /// Reads the lines of this NDJSON file instead of a git history.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The SQLite file [default: reflex-demo.sqlite in the repository's git directory, FILE.reflex.sqlite with --file].
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Prints the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Goes on running: imports commits as they are made, and serves /metrics and /health at this address.
    #[arg(long, value_name = "ADDR")]
    pub(crate) serve: Option<String>,
}

const DEMO_HELP: &str = "\
Commits are those of HEAD, oldest first, with authors named as by `git shortlog -sn` and lines counted
as by `git log --numstat`. A commit is known by its hash: one that was rewritten away stays in the
stream, the one that replaced it is new. Bytes of an author's name that are not UTF-8 are shown as \\xNN.

With --file any line that is a JSON object is an event. One as `reflex tail --json` prints it is taken
as it is; of others the whole line is the metadata, and the keys `type`, `foreign_id`, `timestamp`,
`author`, `added` and `deleted` are used where they fit. Lines that are appended later are new events.

With --json the keys are:
  imported           events that this run imported
  events             events in the stream
  events_per_second  events that the consumers were handed per second, all three together
  consumers          name, cursor, events that this run handed to it, how many of them it skipped,
                     errors, lag_seconds (age of the oldest event that it has not consumed)
  authors, days, merges, data
                     the results, and the SQLite file that holds them

Examples:
  reflex demo
  reflex demo --repo ~/src/linux
  reflex demo --json | jq .authors
  reflex demo --file events.ndjson --data /tmp/demo.sqlite
  reflex demo --serve 127.0.0.1:9100
      then: curl http://127.0.0.1:9100/health, curl http://127.0.0.1:9100/metrics";
