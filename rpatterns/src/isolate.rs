//! Finds the events that a consumer cannot handle, for the patterns that go on without them.

use reflex_core::{Consumer, Error, Event, HandlerError, Input, Progress, Result};

use crate::answers::{ends_the_run, first, settled};

tokio::task_local! {
    /// Set while a part of a failed input is handed over that can be divided further.
    static PART: ();
}

/// Whether what is handed over is a part of an input that failed before: its failure says where to look next, and to wait and
/// try again would only take time.
pub(crate) fn is_searching() -> bool {
    PART.try_with(|()| ()).is_ok()
}

/// Where events go that could not be handled.
pub(crate) trait Outlet: Send + Sync {
    /// The pattern's name, for its users.
    const PATTERN: &'static str;

    /// Whether the run goes on after this error.
    fn takes(&self, error: &HandlerError) -> bool;

    /// Whether a failed input is put aside as it is, without a search for the events that spoil it.
    fn takes_whole_inputs(&self) -> bool;

    /// What is left of an input without the events that must not be handed over, which it has taken.
    fn withhold<T: Input>(&self, consumer: &str, input: T) -> impl Future<Output = Result<Option<T>>> + Send;

    /// Takes an event that could not be handled.
    fn take(&self, consumer: &str, event: &Event, error: &HandlerError) -> impl Future<Output = Result<()>> + Send;
}

/// Hands an input over, in parts if it fails, until each event was handled or is in the outlet.
pub(crate) async fn hand_over<T: Input, K: Consumer<T>, O: Outlet>(
    inner: &mut K,
    input: T,
    outlet: &O,
) -> Result<Progress, HandlerError> {
    match attempt(inner, input, outlet).await? {
        Attempt::Settled(progress) => Ok(progress),
        // Boxed, so that what every input goes through stays small.
        Attempt::Failed(input, error) => Box::pin(search(inner, input, error, outlet)).await,
    }
}

/// Hands over the parts of an input that failed, and takes the events that fail by themselves.
async fn search<T: Input, K: Consumer<T>, O: Outlet>(
    inner: &mut K,
    input: T,
    error: HandlerError,
    outlet: &O,
) -> Result<Progress, HandlerError> {
    let mut failed = Some((input, error));
    // The parts that are left, the next one last.
    let mut parts = Vec::new();
    while let Some((input, error)) = failed.take() {
        if outlet.takes_whole_inputs() {
            take_all(inner.name(), &input, &error, outlet).await?;
        } else {
            match input.split() {
                Ok((first, second)) => parts.extend([second, first]),
                Err(single) => take_all(inner.name(), &single, &error, outlet).await?,
            }
        }
        while failed.is_none()
            && let Some(part) = parts.pop()
        {
            let divisible = part.events().len() > 1;
            let attempted = Box::pin(attempt(inner, part, outlet));
            let attempted = if divisible { PART.scope((), attempted).await } else { attempted.await };
            if let Attempt::Failed(part, error) = attempted? {
                failed = Some((part, error));
            }
        }
    }
    Ok(Progress::Done)
}

enum Attempt<T> {
    Settled(Progress),
    Failed(T, HandlerError),
}

/// Hands over what is not withheld. An error that ends the run is the outer one.
async fn attempt<T: Input, K: Consumer<T>, O: Outlet>(
    inner: &mut K,
    input: T,
    outlet: &O,
) -> Result<Attempt<T>, HandlerError> {
    let Some(input) = outlet.withhold(inner.name(), input).await? else {
        return Ok(Attempt::Settled(Progress::Done));
    };
    match inner.consume(input.clone()).await {
        Ok(progress) => Ok(Attempt::Settled(settled(progress, &input, O::PATTERN, inner.name())?)),
        Err(error) if ends_the_run(&error) || !outlet.takes(&error) => {
            Err(Error::from_handler(error).at_event(first(&input)).into())
        }
        Err(error) => Ok(Attempt::Failed(input, error)),
    }
}

async fn take_all<T: Input, O: Outlet>(consumer: &str, input: &T, error: &HandlerError, outlet: &O) -> Result<()> {
    for event in input.events() {
        outlet.take(consumer, event, error).await?;
    }
    Ok(())
}
