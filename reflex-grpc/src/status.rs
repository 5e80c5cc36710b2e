//! Errors as statuses, and back.

use std::{error::Error as StdError, iter::successors};

use reflex_core::Error;
use tonic::{Code, Status, TimeoutExpired};

use crate::marks::Mark;

/// How much of an error is told to the other side, in bytes: a header that is too long breaks the call.
const MAX_MESSAGE: usize = 2_000;

/// The status that tells the other side how a stream ended.
pub(crate) fn to_status(error: &Error) -> Status {
    if error.is_head_reached() {
        return Mark::HeadReached.status();
    }
    if let Some(status) = causes(error).find_map(expected) {
        return status;
    }
    let code = if error.is_invalid() { Code::InvalidArgument } else { Code::Unknown };
    Status::new(code, with_causes(error))
}

/// The error of a call that failed while it did what was `attempted`.
pub(crate) fn from_status(attempted: &str, status: Status) -> Error {
    if let Some(mark) = Mark::of(&status) {
        let end = match mark {
            Mark::Stopped => Error::stopped(),
            Mark::HeadReached => Error::head_reached(),
        };
        return end.caused_by(crate::Error::from(status));
    }
    if causes(&status).any(|cause| cause.is::<TimeoutExpired>()) {
        return Error::deadline_exceeded().caused_by(crate::Error::from(status));
    }
    // A status with a cause was made on this side, of a connection that failed: that nobody asked for.
    let from_peer = status.source().is_none();
    match status.code() {
        Code::Cancelled if from_peer => Error::cancelled().caused_by(crate::Error::from(status)),
        Code::DeadlineExceeded => Error::deadline_exceeded().caused_by(crate::Error::from(status)),
        Code::InvalidArgument => {
            Error::invalid(format!("{attempted}: refused as invalid")).caused_by(crate::Error::from(status))
        }
        _ => Error::stream(format!("{attempted}{}", advice(&status)), crate::Error::from(status)),
    }
}

/// The status of an end that a service brings about itself. The words are Go's: its services compare them.
fn expected(cause: &(dyn StdError + 'static)) -> Option<Status> {
    if cause.is::<tokio::time::error::Elapsed>() {
        return Some(Status::deadline_exceeded("context deadline exceeded"));
    }
    match cause.downcast_ref::<Error>()? {
        error if error.is_stopped() => Some(Mark::Stopped.status()),
        error if error.is_cancelled() => Some(Status::cancelled("context canceled")),
        error if error.is_deadline_exceeded() => Some(Status::deadline_exceeded("context deadline exceeded")),
        _ => None,
    }
}

/// What to do about a status that has a usual reason.
fn advice(status: &Status) -> &'static str {
    match status.code() {
        Code::Unimplemented => {
            ": the server has no such method: is the address right, and is the service added to that server?"
        }
        Code::OutOfRange | Code::ResourceExhausted if is_too_large(status.message()) => {
            ": a message is larger than the limit of its reader: raise `max_decoding_message_size` of the client, by default \
             4 MiB, and mind limits of the server and of proxies between"
        }
        _ => "",
    }
}

/// Whether these are tonic's or Go's words for a message that is too large.
fn is_too_large(message: &str) -> bool {
    message.contains("message length too large") || message.contains("message larger than max")
}

fn with_causes(error: &Error) -> String {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let mut message = texts.join(": ");
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message
}

/// The error itself, its cause, the cause of that, and so on.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    successors(Some(error), |&error| error.source())
}
