mod attempts;
mod bench;
mod concurrency;
mod parking;
mod putting;
mod redriving;

use reflex_core::{AttemptStore, DeadLetter, DeadLetterStore, HandlerError, Selection};

use self::bench::Bench;
use super::runner::{Case, run_cases};

/// What a store of dead letters is capable of. The default is everything that a store of this project has to be capable of.
///
/// # Examples
///
/// ```
/// use reflex_testing::conformance::DeadLetterCapabilities;
///
/// let capabilities = DeadLetterCapabilities { leases: false, ..DeadLetterCapabilities::default() };
/// # let _ = capabilities;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterCapabilities {
    /// A claim that was not settled runs out; its harness can let that happen. Default: true.
    pub leases: bool,
    /// Names that differ only in case or in trailing spaces are different consumers, events and foreign ids. Default: true.
    pub exact_names: bool,
}

impl Default for DeadLetterCapabilities {
    fn default() -> Self {
        Self { leases: true, exact_names: true }
    }
}

/// One namespace of a store of dead letters, empty at first, with any number of stores that share it, and what an operator
/// can do there.
///
/// # Examples
///
/// ```
/// use reflex_core::{DeadLetter, HandlerError, MemoryDeadLetters, Selection};
/// use reflex_testing::conformance::{DeadLetterCapabilities, DeadLetterHarness, dead_letters};
///
/// struct InMemory(MemoryDeadLetters);
///
/// impl DeadLetterHarness for InMemory {
///     type Store = MemoryDeadLetters;
///
///     async fn store(&self) -> Result<MemoryDeadLetters, HandlerError> {
///         Ok(self.0.clone())
///     }
///
///     async fn open(&self, consumer: &str) -> Result<Vec<DeadLetter>, HandlerError> {
///         Ok(self.0.open(consumer))
///     }
///
///     async fn request(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>, HandlerError> {
///         Ok(self.0.request(consumer, selection)?)
///     }
///
///     async fn discard(&self, consumer: &str, selection: &Selection) -> Result<Vec<DeadLetter>, HandlerError> {
///         Ok(self.0.discard(consumer, selection))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let capabilities = DeadLetterCapabilities { leases: false, ..DeadLetterCapabilities::default() };
/// dead_letters(|_case, bound| async move { Ok(InMemory(MemoryDeadLetters::bounded(bound))) }, capabilities).await;
/// # });
/// ```
pub trait DeadLetterHarness: Send + Sync {
    /// The store under test.
    type Store: DeadLetterStore + AttemptStore + 'static;

    /// Opens another store of the same letters, as another process would.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn store(&self) -> impl Future<Output = Result<Self::Store, HandlerError>> + Send;

    /// The open letters of a consumer, oldest first, whole.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn open(&self, consumer: &str) -> impl Future<Output = Result<Vec<DeadLetter>, HandlerError>> + Send;

    /// Requests a redrive. Answers with the letters that are meant, oldest first.
    ///
    /// # Errors
    ///
    /// If one is parked behind a letter that is open and not requested.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn request(
        &self,
        consumer: &str,
        selection: &Selection,
    ) -> impl Future<Output = Result<Vec<DeadLetter>, HandlerError>> + Send;

    /// Discards letters. Answers with them, oldest first.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn discard(
        &self,
        consumer: &str,
        selection: &Selection,
    ) -> impl Future<Output = Result<Vec<DeadLetter>, HandlerError>> + Send;

    /// Lets all claims run out. The default cannot.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn expire_claims(&self) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async { Err(HandlerError::new("the harness cannot let claims run out: switch the capability off")) }
    }
}

/// Runs every case of the [`DeadLetterStore`] and the [`AttemptStore`] contract.
///
/// `factory` is called with the name of each case and with the most letters that a consumer may have open, and makes a
/// namespace for it.
///
/// # Panics
///
/// If a case fails; the message lists all that did.
///
/// # Cancel safety
///
/// Dropping the future ends the case that runs; what it wrote stays.
///
/// # Examples
///
/// See [`DeadLetterHarness`].
pub async fn dead_letters<H, Fut>(factory: impl Fn(&'static str, usize) -> Fut, capabilities: DeadLetterCapabilities)
where
    H: DeadLetterHarness,
    Fut: Future<Output = Result<H, HandlerError>>,
{
    let cases: &[Case<Bench<H>>] = &[
        ("put", |bench| Box::pin(putting::put_aside(bench))),
        ("whole events", |bench| Box::pin(putting::whole_events(bench))),
        ("the first error stays", |bench| Box::pin(putting::the_first_error_stays(bench))),
        ("open events", |bench| Box::pin(putting::open_events(bench))),
        ("opened again", |bench| Box::pin(putting::opened_again(bench))),
        ("the order is that of putting aside", |bench| Box::pin(putting::order(bench))),
        ("the bound", |bench| Box::pin(putting::bound(bench))),
        ("the bound counts parked events", |bench| Box::pin(putting::bound_of_parked(bench))),
        ("consumers are independent", |bench| Box::pin(putting::consumers_are_independent(bench))),
        ("names that differ in little", |bench| Box::pin(putting::names_that_differ_in_little(bench))),
        ("any text", |bench| Box::pin(putting::any_text(bench))),
        ("dropped puts", |bench| Box::pin(putting::dropped(bench))),
        ("nothing to park behind", |bench| Box::pin(parking::nothing_to_park_behind(bench))),
        ("park behind", |bench| Box::pin(parking::park_behind(bench))),
        ("park a long slice", |bench| Box::pin(parking::long_slice(bench))),
        ("parked again", |bench| Box::pin(parking::parked_again(bench))),
        ("not behind what is open no more", |bench| Box::pin(parking::not_behind_what_was_redriven(bench))),
        ("nothing to claim", |bench| Box::pin(redriving::nothing_to_claim(bench))),
        ("only what is requested", |bench| Box::pin(redriving::only_what_is_requested(bench))),
        ("selections", |bench| Box::pin(redriving::selections(bench))),
        ("claims are exclusive", |bench| Box::pin(redriving::claims_are_exclusive(bench))),
        ("parked events wait", |bench| Box::pin(redriving::parked_events_wait(bench))),
        ("a failed redrive", |bench| Box::pin(redriving::failed(bench))),
        ("a failed redrive withdraws the requests behind it", |bench| Box::pin(redriving::failed_withdraws(bench))),
        ("a parked event alone is refused", |bench| Box::pin(redriving::parked_alone_is_refused(bench))),
        ("discard", |bench| Box::pin(redriving::discard(bench))),
        ("discarded while it is redriven", |bench| Box::pin(redriving::discarded_while_redriven(bench))),
        ("a claim that runs out", |bench| Box::pin(redriving::claim_runs_out(bench))),
        ("a claim that was taken over", |bench| Box::pin(redriving::claim_taken_over(bench))),
        ("attempts", |bench| Box::pin(attempts::attempts(bench))),
        ("concurrent puts of one event", |bench| Box::pin(concurrency::puts_of_one_event(bench))),
        ("concurrent puts at the bound", |bench| Box::pin(concurrency::puts_at_the_bound(bench))),
        ("concurrent claims", |bench| Box::pin(concurrency::claims(bench))),
        ("parking beside redriving", |bench| Box::pin(concurrency::parking_beside_redriving(bench))),
    ];
    let bench =
        async |case| Ok(Bench { harness: factory(case, bench::BOUND).await?, capabilities: capabilities.clone() });
    run_cases("dead_letters", cases, bench).await;
}
