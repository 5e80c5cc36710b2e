//! What the patterns that act on failures have to know about the answers of the consumer inside.

use reflex_core::{Error, Event, HandlerError, Input, Progress};

/// The answer, if it is about this whole input. One that comes later or is about other events is refused: an error after it
/// could not be told to belong to the input in hand, and events before that would be lost.
pub(crate) fn settled<T: Input>(
    progress: Progress,
    input: &T,
    pattern: &str,
    consumer: &str,
) -> Result<Progress, HandlerError> {
    let all = match &progress {
        Progress::Done | Progress::Skipped => true,
        Progress::UpTo(cursor) => Some(cursor) == input.events().last().map(Event::id),
        Progress::Pending => false,
    };
    if all {
        return Ok(progress);
    }
    Err(Error::invalid(format!(
        "{pattern} is around consumer `{consumer}`, which answers later for what it is handed, so that it cannot be told \
         what failed: put {pattern} around the handler inside of it"
    ))
    .into())
}

/// Whether an error ends the run, whatever a pattern does about errors.
pub(crate) fn ends_the_run(error: &HandlerError) -> bool {
    error.is_expected() || error.is_fenced()
}

/// The first event of an input, after which it is named.
pub(crate) fn first<T: Input>(input: &T) -> &Event {
    input.events().first().expect("a pattern never hands over an input without events")
}
