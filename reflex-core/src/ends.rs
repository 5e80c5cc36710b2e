//! What the end of a run means, and how it is told.

use crate::{Error, Result, health::Ending};

/// Whether a run ended as it was meant to.
pub(crate) fn as_intended(error: &Error) -> bool {
    error.is_expected() || error.is_head_reached()
}

/// What the end of a run means; `asked` is whether the service asked for it.
pub(crate) fn ending(error: &Error, asked: bool) -> Ending {
    match error {
        error if error.is_head_reached() || (asked && error.is_stopped()) => Ending::Intended,
        error if error.is_expected() => Ending::Expected,
        _ => Ending::Failed,
    }
}

/// The error of a run that ended with `end` and was closed after that. The other one, if there is one, is told.
pub(crate) fn most_telling(consumer: &str, end: Error, closed: Result<()>) -> Error {
    match closed {
        Ok(()) => end,
        Err(closing) if as_intended(&end) => closing,
        Err(closing) => {
            tracing::error!(consumer, error = &closing as &dyn std::error::Error, "closing the run failed as well");
            end
        }
    }
}

/// Tells why a run ended.
pub(crate) fn report(consumer: &str, error: &Error) {
    tracing::error!(
        consumer,
        event_id = error.event_id().map(tracing::field::display),
        foreign_id = error.foreign_id(),
        error = error as &dyn std::error::Error,
        "the run ended"
    );
}
