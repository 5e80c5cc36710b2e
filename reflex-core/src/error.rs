use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::{Cursor, Event};

type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended, a stream broke or a cursor could not be read or written.
///
/// The type is opaque; ask it with its predicates. Where they are known it carries the consumer, the event id and the
/// foreign id. `Display` says what was attempted and on what; the cause is in [`source`](StdError::source) and is not
/// printed a second time.
///
/// Adapters build their errors with [`Error::stream`] and [`Error::store`] and keep their own error as the source.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    attempted: Cow<'static, str>,
    consumer: Option<Box<str>>,
    event_id: Option<Cursor>,
    foreign_id: Option<Box<str>>,
    source: Option<BoxError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stopped,
    HeadReached,
    Ended,
    Cancelled,
    DeadlineExceeded,
    CursorBackwards,
    CursorUnchanged,
    Fenced,
    Filter,
    Handler,
    Stream,
    Store,
    Invalid,
}

impl Error {
    /// Something was asked to stop and did: a shutdown signal, a stopped source.
    #[must_use]
    pub fn stopped() -> Self {
        Self::new(Kind::Stopped, "stopped as asked")
    }

    /// A stream that was opened [to head](crate::StreamOptions::to_head) has nothing deliverable left.
    #[must_use]
    pub fn head_reached() -> Self {
        Self::new(Kind::HeadReached, "reached the head of the stream")
    }

    /// The other side cancelled the work, for example a gRPC peer.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled by the other side")
    }

    /// A deadline set by the caller passed.
    #[must_use]
    pub fn deadline_exceeded() -> Self {
        Self::new(Kind::DeadlineExceeded, "the deadline passed")
    }

    /// Reading events failed. `attempted` says what was read from where, for example ``read events table `orders` ``.
    pub fn stream(attempted: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Self {
        Self::new(Kind::Stream, attempted).caused_by(source)
    }

    /// Reading or writing a cursor failed. `attempted` says which, for example ``set cursor for consumer `billing` ``.
    pub fn store(attempted: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Self {
        Self::new(Kind::Store, attempted).caused_by(source)
    }

    /// An option, an event or a cursor cannot be used as it is. `message` says why and what would be right.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A filter could not decide about an event.
    pub fn filter(source: HandlerError) -> Self {
        Self::new(Kind::Filter, "the event filter failed").caused_by(source.0)
    }

    /// A cursor store refused to move an integer cursor from `stored` back to `new`.
    #[must_use]
    pub fn cursor_backwards(consumer: &str, stored: &Cursor, new: &Cursor) -> Self {
        let attempted = format!(
            "set cursor to {new}, below the stored cursor {stored}: another runner of the same consumer may be ahead, \
             or the cursor was moved by hand"
        );
        Self::new(Kind::CursorBackwards, attempted).in_consumer(consumer)
    }

    /// A cursor store found `cursor` already stored.
    ///
    /// It has a predicate of its own because a write that is tried again may have succeeded the first time.
    #[must_use]
    pub fn cursor_unchanged(consumer: &str, cursor: &Cursor) -> Self {
        let attempted = format!("set cursor to {cursor}, which is the stored cursor already");
        Self::new(Kind::CursorUnchanged, attempted).in_consumer(consumer)
    }

    /// Somebody else runs the same consumer: its cursor is not where this run left it. Nothing was changed.
    #[must_use]
    pub fn fenced(consumer: &str) -> Self {
        let attempted = "another runner of the same consumer moved its cursor: stop one of the two";
        Self::new(Kind::Fenced, attempted).in_consumer(consumer)
    }

    pub(crate) fn ended() -> Self {
        Self::new(Kind::Ended, "the stream ended without an error")
    }

    /// Wraps what a consumer returned. An error of ours keeps its kind, so that predicates see through the handler; but the
    /// end of another stream that the handler read is not the end of this one.
    ///
    /// [`run`](crate::run) does this with every error of a consumer. A pattern does it earlier to [say](Error::at_event) which
    /// event failed, where that is not the one that it was handed last.
    #[must_use]
    pub fn from_handler(error: HandlerError) -> Self {
        match error.0.downcast::<Error>() {
            Ok(ours) if !matches!(ours.0.kind, Kind::HeadReached | Kind::Ended) => *ours,
            Ok(end) => Self::new(Kind::Handler, "the handler failed").caused_by(end),
            Err(other) => Self::new(Kind::Handler, "the handler failed").caused_by(other),
        }
    }

    fn new(kind: Kind, attempted: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            attempted: attempted.into(),
            consumer: None,
            event_id: None,
            foreign_id: None,
            source: None,
        }))
    }

    /// Adds the cause, replacing one that it has: for adapters whose other side says more than the kind of the error does.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Names the consumer, unless the error names one already.
    #[must_use]
    pub fn in_consumer(mut self, consumer: &str) -> Self {
        self.0.consumer.get_or_insert_with(|| consumer.into());
        self
    }

    /// Names the event, unless the error names one already.
    #[must_use]
    pub fn at_event(self, event: &Event) -> Self {
        self.at(event.id(), event.foreign_id())
    }

    /// Names an event of which nothing but the id is known, unless the error names one already: for adapters that could not
    /// read it.
    #[must_use]
    pub fn at_event_id(mut self, event_id: impl Into<Cursor>) -> Self {
        self.0.event_id.get_or_insert_with(|| event_id.into());
        self
    }

    /// Names an event by its ids, unless the error names one already.
    pub(crate) fn at(mut self, event_id: &Cursor, foreign_id: &str) -> Self {
        if self.0.event_id.is_none() {
            self.0.event_id = Some(event_id.clone());
            self.0.foreign_id = Some(foreign_id.into());
        }
        self
    }

    /// True if something was asked to stop and did.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.kind == Kind::Stopped
    }

    /// True if a stream that was opened to head reached it: the successful end of a back-fill.
    #[must_use]
    pub fn is_head_reached(&self) -> bool {
        self.0.kind == Kind::HeadReached
    }

    /// True if a source ended its stream without an error. Sources that follow their data never do.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.kind == Kind::Ended
    }

    /// True if the other side cancelled the work.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == Kind::Cancelled
    }

    /// True if a deadline set by the caller passed.
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        self.0.kind == Kind::DeadlineExceeded
    }

    /// True for ends that a service brings about itself: stopped, cancelled, or past a deadline, here or in the cause.
    ///
    /// Such errors do not count in the error metric and are not handed to a recovery function. Everything else, a lost
    /// database included, is unexpected.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        is_expected(self)
    }

    /// True if a filter failed, as opposed to the handler behind it.
    #[must_use]
    pub fn is_filter(&self) -> bool {
        self.0.kind == Kind::Filter
    }

    /// True if an integer cursor would have moved backwards.
    #[must_use]
    pub fn is_cursor_backwards(&self) -> bool {
        self.0.kind == Kind::CursorBackwards
    }

    /// True if the cursor was stored already.
    #[must_use]
    pub fn is_cursor_unchanged(&self) -> bool {
        self.0.kind == Kind::CursorUnchanged
    }

    /// True if another runner of the same consumer was found. Trying again cannot help, and the event is in its hands.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.kind == Kind::Fenced
    }

    /// True if the input itself is wrong, so that trying again cannot help: an option, an event, a cursor.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.0.kind == Kind::Invalid
    }

    /// The consumer that failed, where known.
    #[must_use]
    pub fn consumer(&self) -> Option<&str> {
        self.0.consumer.as_deref()
    }

    /// The id of the event that failed, where known.
    #[must_use]
    pub fn event_id(&self) -> Option<&Cursor> {
        self.0.event_id.as_ref()
    }

    /// The foreign id of the event that failed, where known.
    #[must_use]
    pub fn foreign_id(&self) -> Option<&str> {
        self.0.foreign_id.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(consumer) = &self.0.consumer {
            write!(f, "consumer `{consumer}`: ")?;
        }
        f.write_str(&self.0.attempted)?;
        if let Some(id) = &self.0.event_id {
            write!(f, " at event {id}")?;
        }
        if let Some(foreign_id) = &self.0.foreign_id {
            write!(f, " (foreign id `{foreign_id}`)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("attempted", &inner.attempted)
            .field("consumer", &inner.consumer)
            .field("event_id", &inner.event_id)
            .field("foreign_id", &inner.foreign_id)
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Whatever went wrong in a handler, a filter or a recovery function: any error, or a message.
///
/// It converts from every error with `?` and, like `anyhow::Error`, is not an error itself. Errors that do not implement
/// [`std::error::Error`], such as `anyhow::Error`, and plain messages go through [`HandlerError::new`].
///
/// # Examples
///
/// ```
/// use reflex_core::HandlerError;
///
/// fn parse(text: &str) -> Result<u32, HandlerError> {
///     if text.is_empty() {
///         return Err(HandlerError::new("the amount is missing"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(parse("").unwrap_err().to_string(), "the amount is missing");
/// assert!(parse("x").is_err());
/// ```
pub struct HandlerError(BoxError);

impl HandlerError {
    /// Wraps a message, a boxed error, or anything else that converts into one.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        Self(error.into())
    }

    /// The error inside.
    #[must_use]
    pub fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }

    /// True for what [`Error::is_expected`] is true for, here or in a cause.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        is_expected(&*self.0)
    }

    /// True if a consumer found another runner of itself; see [`Error::is_fenced`]. A pattern must not go on after it.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.downcast_ref::<Error>().is_some_and(Error::is_fenced)
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl From<HandlerError> for Box<dyn StdError + Send + Sync + 'static> {
    fn from(error: HandlerError) -> Self {
        error.0
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn is_expected(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<tokio::time::error::Elapsed>() {
            return true;
        }
        if let Some(ours) = error.downcast_ref::<Error>()
            && matches!(ours.0.kind, Kind::Stopped | Kind::Cancelled | Kind::DeadlineExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_is_seen_through_causes() {
        assert!(Error::stopped().is_expected());
        assert!(Error::stream("read", Error::cancelled()).is_expected());
        assert!(HandlerError::from(Error::deadline_exceeded()).is_expected());
        assert!(!Error::head_reached().is_expected());
        assert!(!Error::stream("read", std::io::Error::other("connection reset")).is_expected());
    }

    #[test]
    fn a_cause_leaves_the_kind_as_it_is() {
        let error = Error::cancelled().caused_by("the peer went away");
        assert!(error.is_cancelled() && !error.is_deadline_exceeded() && error.is_expected());
        assert_eq!(error.source().unwrap().to_string(), "the peer went away");
    }

    #[test]
    fn an_error_of_ours_keeps_its_kind_through_a_handler() {
        let error = Error::from_handler(Error::stopped().into());
        assert!(error.is_stopped());
        let error = Error::from_handler(HandlerError::new("no"));
        assert!(!error.is_expected());
        assert_eq!(error.source().unwrap().to_string(), "no");
    }

    #[test]
    fn a_cursor_error_names_both_positions() {
        let text = Error::cursor_backwards("billing", &Cursor::from(9), &Cursor::from(4)).to_string();
        assert!(text.contains("billing") && text.contains('9') && text.contains('4'), "{text}");
    }
}
