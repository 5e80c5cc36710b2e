use std::{fmt, sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a cursor or a stream in Redis could not be read or written.
///
/// Opaque; ask it with its predicates. Streams and cursor stores return [`reflex_core::Error`] with this one as the source:
///
/// ```
/// use std::error::Error as _;
///
/// fn is_trimmed(error: &reflex_core::Error) -> bool {
///     let source = error.source().and_then(|source| source.downcast_ref::<reflex_redis::Error>());
///     source.is_some_and(|error| error.is_trimmed())
/// }
/// # let _ = is_trimmed;
/// ```
#[derive(Clone)]
pub struct Error(Arc<Problem>);

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("`{name}` is no {what}: use 1 to {max} bytes without control characters")]
    InvalidName { name: String, what: &'static str, max: usize },
    #[error("{attempted}{advice}")]
    Redis { attempted: String, advice: &'static str, source: Cause },
    #[error("{attempted}: no answer within {} s; is Redis stalled or out of reach?", .deadline.as_secs_f64())]
    Deadline { attempted: String, deadline: Duration },
    #[error("{attempted}: the key holds no {wanted}; does something else use this name?")]
    WrongType { attempted: String, wanted: &'static str },
    #[error(
        "the key `{key}` holds {value}, which is no cursor: {why}; if nothing else uses this key, set the cursor with \
         `force_set`, or delete it to start from the beginning"
    )]
    NotACursor { key: String, value: String, why: &'static str },
    #[error("{value} cannot be stored as a cursor: {why}")]
    CannotStore { value: String, why: &'static str },
    #[error("others keep changing the cursor in the key `{key}`: is the consumer run more than once?")]
    Contended { key: String },
    #[error(
        "cursor `{cursor}` is no entry id, as in 1526919030474-55, of stream `{key}`: does it belong to another stream?"
    )]
    NotAnEntryId { key: String, cursor: String },
    #[error("{0}")]
    Trimmed(Trimmed),
    #[error(
        "cursor {cursor} is ahead of stream `{key}`, whose last id so far is {last}: the stream was deleted, or Redis lost \
         writes in a crash or a failover; check what was lost, then delete the cursor to start from the beginning"
    )]
    CursorAhead { key: String, cursor: String, last: String },
    #[error(
        "stream `{key}` was replaced by another one while it was read, up to {after}: check what was lost, then delete the \
         cursor to start from the beginning"
    )]
    Replaced { key: String, after: String },
    #[error("entry {id} of stream `{key}` is no event: field `{field}` {problem}")]
    Malformed { key: String, id: String, field: &'static str, problem: String },
    #[error("Redis answered XINFO STREAM for stream `{key}` without `{field}`: use Redis 7.0 or newer")]
    TooOld { key: String, field: &'static str },
    #[error("the event cannot be appended to stream `{key}`: {problem}")]
    Event { key: String, problem: String },
}

/// Entries after a position are gone, or may be.
#[derive(Debug)]
pub(crate) struct Trimmed {
    pub(crate) key: String,
    pub(crate) after: String,
    /// The first entry that is left.
    pub(crate) first: Option<String>,
    /// How many are gone; `None` if it cannot be known whether there were any.
    pub(crate) lost: Option<u64>,
}

impl fmt::Display for Trimmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, after, first, lost } = self;
        write!(f, "stream `{key}` was trimmed past {after}: ")?;
        match lost {
            Some(count) => write!(f, "entries after it are gone: {count}")?,
            None => write!(f, "that entry is gone, and entries after it may be gone as well")?,
        }
        match first {
            Some(first) => write!(f, "; the first one left is {first}")?,
            None => write!(f, "; none is left")?,
        }
        write!(f, "; let the stream keep more, and delete the cursor to go on with what is left")
    }
}

/// An error of the client that does not tell its own cause a second time.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(RedisError);

impl Problem {
    /// Says what was attempted when Redis failed, and what can be done about it.
    pub(crate) fn redis(attempted: String, source: RedisError) -> Self {
        Self::Redis { attempted, advice: advice(&source), source: Cause(source) }
    }

    /// As [`redis`](Self::redis), for a command on one key that has to be of a type.
    pub(crate) fn on_key(attempted: String, wanted: &'static str, source: RedisError) -> Self {
        match code(&source).as_deref() {
            Some("WRONGTYPE") => Self::WrongType { attempted, wanted },
            _ => Self::redis(attempted, source),
        }
    }
}

fn advice(error: &RedisError) -> &'static str {
    match code(error).as_deref() {
        Some("READONLY") => ": this is a read-only replica; connect to the primary",
        Some("OOM") => ": Redis is out of memory; raise its maxmemory or let it hold less",
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => ": check the user, the password and the rights in Redis",
        Some("MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN") => {
            ": this is a node of a Redis Cluster, which is not supported"
        }
        Some("LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN") => ": Redis is not ready; try again later",
        Some("MISCONF") => ": Redis refuses writes because it cannot save them; see its log",
        _ if error.kind() == ErrorKind::AuthenticationFailed => ": check the user and the password",
        _ if error.kind() == ErrorKind::Io => ": is Redis running and in reach?",
        _ => "",
    }
}

/// What the server called the error, or the first one of a transaction.
fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    errors.first().map(|(_, error)| error.code().to_owned())
}

/// Whether the connection is of no more use after this error.
pub(crate) fn ends_connection(error: &RedisError) -> bool {
    match error.kind() {
        // A primary that was demoted: its name may lead to another server by now.
        ErrorKind::Server(kind) => kind == ServerErrorKind::ReadOnly,
        ErrorKind::Extension => false,
        _ => true,
    }
}

impl Error {
    /// True if a prefix or the name of a stream cannot be used.
    #[must_use]
    pub fn is_invalid_name(&self) -> bool {
        matches!(*self.0, Problem::InvalidName { .. })
    }

    /// True if a key is not of the type that it should be.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        matches!(*self.0, Problem::WrongType { .. })
    }

    /// True if what is stored for a consumer is no cursor.
    #[must_use]
    pub fn is_not_a_cursor(&self) -> bool {
        matches!(*self.0, Problem::NotACursor { .. })
    }

    /// True if entries after the cursor, or after the last event of a slow stream, are gone, or may be.
    #[must_use]
    pub fn is_trimmed(&self) -> bool {
        matches!(*self.0, Problem::Trimmed(_))
    }

    /// True if a cursor is ahead of everything that the stream ever held, or the stream was replaced by another one.
    #[must_use]
    pub fn is_cursor_ahead(&self) -> bool {
        matches!(*self.0, Problem::CursorAhead { .. } | Problem::Replaced { .. })
    }

    /// True if an entry of a stream is no event.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(*self.0, Problem::Malformed { .. })
    }

    /// The error of the Redis client behind this one, if it comes from there.
    #[must_use]
    pub fn as_redis(&self) -> Option<&RedisError> {
        match &*self.0 {
            Problem::Redis { source, .. } => Some(&source.0),
            _ => None,
        }
    }

    /// True if trying again cannot help until somebody changes the input.
    fn is_invalid(&self) -> bool {
        matches!(*self.0, Problem::InvalidName { .. } | Problem::NotAnEntryId { .. } | Problem::CannotStore { .. })
    }

    /// As the error of a stream.
    pub(crate) fn into_stream_error(self, key: &str) -> reflex_core::Error {
        if self.is_invalid() {
            return reflex_core::Error::invalid(self.to_string());
        }
        reflex_core::Error::stream(format!("read stream `{key}`"), self)
    }

    /// As the error of a cursor store.
    pub(crate) fn into_store_error(self, attempted: String) -> reflex_core::Error {
        if self.is_invalid() {
            return reflex_core::Error::invalid(self.to_string());
        }
        reflex_core::Error::store(attempted, self)
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
