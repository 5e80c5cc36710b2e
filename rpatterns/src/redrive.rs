use reflex_core::{Consumer, DeadLetter, DeadLetterStore, Error, HandlerError, Input, Result};

use crate::{
    DeadLetterConsumer,
    answers::{ends_the_run, settled},
};

/// What became of the letters that [`redrive()`] handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// How many were handled, and are closed.
    pub handled: u64,
    /// How many failed again, and stay open.
    pub failed: u64,
}

/// Hands all letters whose redrive was requested to the consumer inside, oldest first, until none is left.
///
/// For a program of its own: a consumer that runs does the same every now and then. Events come from the store alone, and
/// no cursor moves. Which letters are redriven is said to the store before, for example by
/// [`MemoryDeadLetters::request`](reflex_core::MemoryDeadLetters::request).
///
/// A letter that fails again stays open, keeps what is parked behind it, and does not end the redrive.
///
/// # Errors
///
/// If the store or the consumer cannot be used, and for errors that end a run in any case.
///
/// # Cancel safety
///
/// After the future was dropped the letter in hand is claimed by nobody until the claim has run out, and is then redriven
/// again. All others are done or not touched.
///
/// # Examples
///
/// ```
/// use reflex_core::{DeadLetterStore, Event, HandlerError, MemoryDeadLetters, MemoryEvents, NewEvent, Selection, consumer_fn};
/// use rpatterns::{dead_letter, redrive};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let letters = MemoryDeadLetters::new();
/// let event = MemoryEvents::new().append(NewEvent::new("order-12", 1));
/// letters.put("charge", &event, &HandlerError::new("no such card")).await?;
/// letters.request("charge", &Selection::All)?;
///
/// let charge = consumer_fn("charge", |_event: Event| async { Ok(()) });
/// let redriven = redrive(&mut dead_letter(letters.clone(), charge)).await?;
/// assert_eq!((redriven.handled, redriven.failed), (1, 0));
/// assert!(letters.open("charge").is_empty());
/// # Ok::<(), reflex_core::Error>(()) }).unwrap();
/// ```
pub async fn redrive<T, S, K>(consumer: &mut DeadLetterConsumer<S, K>) -> Result<Redriven>
where
    T: Input,
    S: DeadLetterStore,
    K: Consumer<T>,
{
    let inner = &mut consumer.inner;
    let redriven = redrive_all(&consumer.letters.store, inner).await;
    let stopped = inner.stop().await;
    let name = inner.name();
    let redriven = redriven.map_err(|error| Error::from_handler(error).in_consumer(name))?;
    stopped.map_err(|error| Error::from_handler(error).in_consumer(name))?;
    Ok(redriven)
}

async fn redrive_all<T: Input>(
    store: &impl DeadLetterStore,
    inner: &mut impl Consumer<T>,
) -> Result<Redriven, HandlerError> {
    let mut redriven = Redriven::default();
    inner.reset().await?;
    while let Some(handled) = redrive_next(store, inner).await? {
        if handled {
            redriven.handled += 1;
        } else {
            redriven.failed += 1;
        }
    }
    Ok(redriven)
}

/// Redrives the next requested letter and answers whether it was handled; `None` if none is requested.
///
/// After an error that ends the run the letter stays claimed: its request is still there when the claim has run out.
pub(crate) async fn redrive_next<T: Input>(
    store: &impl DeadLetterStore,
    inner: &mut impl Consumer<T>,
) -> Result<Option<bool>, HandlerError> {
    let Some(letter) = store.claim(inner.name()).await? else {
        return Ok(None);
    };
    let input = T::one(letter.event.clone());
    let error = match inner.redrive(input.clone()).await {
        Ok(progress) => {
            drop(settled(progress, &input, "dead_letter", inner.name())?);
            None
        }
        Err(error) if ends_the_run(&error) => return Err(Error::from_handler(error).at_event(&letter.event).into()),
        Err(error) => Some(error),
    };
    if let Some(error) = &error {
        report(&letter, error);
    }
    store.settle(&letter, error.as_ref().map_or(Ok(()), Err)).await?;
    Ok(Some(error.is_none()))
}

fn report(letter: &DeadLetter, error: &HandlerError) {
    tracing::warn!(
        consumer = &*letter.consumer,
        event_id = %letter.event.id(),
        foreign_id = letter.event.foreign_id(),
        error = error.as_error(),
        "a redriven event failed again and stays put aside"
    );
}
