use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

/// Why a table could not be opened, read or written.
///
/// Opaque; ask it with its predicates. Streams and cursor stores return [`reflex_core::Error`] with this one as the source:
///
/// ```
/// use std::error::Error as _;
///
/// fn is_standby(error: &reflex_core::Error) -> bool {
///     let source = error.source().and_then(|source| source.downcast_ref::<reflex_sql::Error>());
///     source.is_some_and(|error| error.is_unsafe())
/// }
/// # let _ = is_standby;
/// ```
#[derive(Clone)]
pub struct Error(Arc<Problem>);

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error(
        "`{0}` is no table or column name: use a letter or underscore, then letters, digits and underscores, at most 63 \
         in all; a schema may stand in front of a table, with a dot"
    )]
    InvalidName(String),
    #[error("{attempted}")]
    Database { attempted: String, source: sqlx::Error },
    #[error(
        "{attempted}: no connection to {server} while the pool waited for one: is the server running and reachable, or are all \
         connections of the pool in use?"
    )]
    NoConnection { attempted: String, server: String, source: sqlx::Error },
    #[error(
        "{attempted}: no answer within {} s from {server}: is it stalled or out of reach, or are all connections of the pool in \
         use?", .deadline.as_secs_f64()
    )]
    Deadline { attempted: String, server: String, deadline: Duration },
    #[error(
        "table `{table}` does not exist: run `reflex migrate` for the default tables, or create it with the statements \
         that `reflex schema` prints"
    )]
    NoTable { table: String },
    #[error("table `{table}` cannot hold {what}: {problem}; {remedy}")]
    Schema { table: String, what: &'static str, problem: String, remedy: String },
    #[error("table `{table}` cannot be read without losing events: {problem}; {remedy}")]
    Unsafe { table: String, problem: String, remedy: String },
    #[error(
        "cursor {cursor} is ahead of table `{table}`, whose highest id so far is {highest}: the table was restored, truncated \
         or lost commits in a crash; check what was lost, then set the cursor with `reflex cursors set --force`"
    )]
    CursorAhead { table: String, cursor: i64, highest: i64 },
    #[error(
        "cursor `{cursor}` is not an integer, and the ids of table `{table}` are: does it belong to another stream?"
    )]
    NotAnInteger { table: String, cursor: String },
    #[error("cursor `{cursor}` is not an integer, and table `{table}` keeps integers: use a table with a text column")]
    CursorNotAnInteger { table: String, cursor: String },
    #[error("others keep changing the cursor of consumer `{consumer}` in table `{table}`: is it run more than once?")]
    Contended { table: String, consumer: String },
    #[error("the cursor in table `{table}` is not where this run left it: {believed}")]
    Fenced { table: String, believed: String },
    #[error(
        "the transaction of consumer `{consumer}` was undone before its commit: its handler ended it by a statement of its \
         own, or went on after a statement that failed"
    )]
    Undone { consumer: String },
    #[error(
        "the handler kept its transaction, so it was rolled back: drop the guard before the handler returns, and do not \
         move it into a task"
    )]
    GuardKept,
    #[error(
        "put event {event} of consumer `{consumer}` aside: {bound} are open in table `{table}` already, which is the bound; \
         look at them with `reflex errors list`, then redrive or discard some (`reflex errors redrive`, `reflex errors discard`)"
    )]
    TooManyLetters { table: String, consumer: String, event: String, bound: usize },
    #[error(
        "redrive event {event} of consumer `{consumer}`: event {first} of the same foreign id `{foreign_id}` is open and comes \
         first; redrive the whole foreign id, or discard event {first}"
    )]
    NotFirst { consumer: String, event: String, first: String, foreign_id: String },
    #[error("{what} `{start}…` has {length} characters, and table `{table}` takes at most {most}")]
    TooLong { table: String, what: &'static str, start: String, length: usize, most: usize },
    #[error("the database was restarted or replaced by another while table `{table}` was read: open the stream again")]
    ServerChanged { table: String },
    #[error(
        "the file {} with table `{table}` was taken away or replaced, and this process still has the one that was there before: \
         start it again when the file is what it should be", .file.display()
    )]
    FileReplaced { table: String, file: PathBuf, source: Option<io::Error> },
    #[error("event {id} of table `{table}` cannot be read; correct its row, or pass over it with `reflex cursors set`")]
    Unreadable { table: String, id: i64, source: sqlx::Error },
    #[error("the timestamp of the oldest event after {after} of table `{table}` cannot be read; correct its row")]
    UnreadableTime { table: String, after: i64, source: sqlx::Error },
    #[error("the type of event {id}, {event_type}, does not fit in 32 bits")]
    TypeOutOfRange { id: i64, event_type: i64 },
    #[error("the event at position {at} of the insert cannot be stored in table `{table}`: {problem}")]
    Event { table: String, at: usize, problem: String },
    #[error("the shared reader of table `{table}` ended with its runtime: open the stream again")]
    ReaderEnded { table: String },
    #[error("{attempted}")]
    WakeUps { attempted: String, source: reflex_core::Error },
    #[error("{attempted}: no answer within {} s", .deadline.as_secs_f64())]
    WakeUpsStalled { attempted: String, deadline: Duration },
    #[error("the connection that listens for wake-ups for table `{table}` was lost")]
    WakeUpsLost { table: String },
    #[error(
        "no wake-up for table `{table}` arrives, not even our own within {} s: is the connection dead, or is there a pooler in \
         between that does not keep the session?", .waited.as_secs_f64()
    )]
    WakeUpsSilent { table: String, waited: Duration },
}

impl Problem {
    /// Says what was attempted when the database failed.
    pub(crate) fn database(attempted: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Error {
        let attempted = attempted.into();
        move |source| Error::from(Problem::Database { attempted, source })
    }
}

impl Error {
    /// True if a name is not a plain identifier.
    #[must_use]
    pub fn is_invalid_name(&self) -> bool {
        matches!(*self.0, Problem::InvalidName(_))
    }

    /// True if the table does not exist.
    #[must_use]
    pub fn is_missing_table(&self) -> bool {
        matches!(*self.0, Problem::NoTable { .. })
    }

    /// True if the table exists and has the wrong columns.
    #[must_use]
    pub fn is_schema(&self) -> bool {
        matches!(*self.0, Problem::Schema { .. })
    }

    /// True if the database or the table is set up so that events could be lost: a standby, a sequence with a cache.
    #[must_use]
    pub fn is_unsafe(&self) -> bool {
        matches!(*self.0, Problem::Unsafe { .. })
    }

    /// True if a cursor is ahead of everything that the table ever held.
    #[must_use]
    pub fn is_cursor_ahead(&self) -> bool {
        matches!(*self.0, Problem::CursorAhead { .. })
    }

    /// True if there is an event whose row cannot be read: a column without a value, a type of more than 32 bits, text that is
    /// no UTF-8, a timestamp that is no date. It stays so until somebody corrects the row or moves cursors past it.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.unreadable_event().is_some() || matches!(*self.0, Problem::UnreadableTime { .. })
    }

    /// True if a consumer's cursor is not where its run left it, because somebody else runs the same consumer.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(*self.0, Problem::Fenced { .. })
    }

    /// True if a consumer has as many open letters as it may have.
    #[must_use]
    pub fn is_too_many_letters(&self) -> bool {
        matches!(*self.0, Problem::TooManyLetters { .. })
    }

    /// True if a letter cannot be redriven because an earlier one of its foreign id is open.
    #[must_use]
    pub fn is_not_first(&self) -> bool {
        matches!(*self.0, Problem::NotFirst { .. })
    }

    /// The error of the database behind this one, if it comes from there.
    #[must_use]
    pub fn as_database(&self) -> Option<&sqlx::Error> {
        match &*self.0 {
            Problem::Database { source, .. } | Problem::NoConnection { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The id of the event whose row cannot be read.
    fn unreadable_event(&self) -> Option<i64> {
        match *self.0 {
            Problem::Unreadable { id, .. } | Problem::TypeOutOfRange { id, .. } => Some(id),
            _ => None,
        }
    }

    /// True if trying again cannot help until somebody changes the input or the set-up.
    fn is_invalid(&self) -> bool {
        matches!(
            *self.0,
            Problem::NotAnInteger { .. }
                | Problem::InvalidName(_)
                | Problem::TooManyLetters { .. }
                | Problem::TooLong { .. }
        )
    }

    /// True if the transaction met another one, and would succeed if it were tried again.
    pub(crate) fn is_contention(&self) -> bool {
        let error = self.as_database().and_then(sqlx::Error::as_database_error);
        error.is_some_and(|error| {
            error.is_unique_violation() || matches!(error.code().as_deref(), Some("40001" | "40P01"))
        })
    }

    /// As the error of a store that attempted something.
    pub(crate) fn into_store_error(self, attempted: String) -> reflex_core::Error {
        if self.is_invalid() {
            return reflex_core::Error::invalid(self.to_string());
        }
        reflex_core::Error::store(attempted, self)
    }

    /// As the error of a stream of `table`.
    pub(crate) fn into_stream_error(self, table: impl fmt::Display) -> reflex_core::Error {
        if self.is_invalid() {
            return reflex_core::Error::invalid(self.to_string());
        }
        let event_id = self.unreadable_event();
        let error = reflex_core::Error::stream(format!("read events table `{table}`"), self);
        match event_id {
            Some(id) => error.at_event_id(id),
            None => error,
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self(Arc::new(problem))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}
