use std::{error::Error, fmt::Debug, pin::Pin, time::Duration};

use reflex_core::HandlerError;
use tokio::time::timeout;

/// How long one case may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) type Outcome<T = ()> = Result<T, HandlerError>;
pub(super) type CaseFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;
pub(super) type Case<T> = (&'static str, for<'a> fn(&'a T) -> CaseFuture<'a>);

/// Runs every case with a setup of its own and panics with all that failed.
pub(super) async fn run_cases<T, Fut>(suite: &str, cases: &[Case<T>], setup: impl Fn(&'static str) -> Fut)
where
    Fut: Future<Output = Outcome<T>>,
{
    let mut failures = Vec::new();
    for (name, case) in cases {
        let outcome = timeout(DEADLINE, async { case(&setup(name).await?).await }).await;
        let outcome = outcome.unwrap_or_else(|_| fail(format!("it took longer than {DEADLINE:?}")));
        failures.extend(outcome.err().map(|error| format!("\n  {name}: {}", with_causes(error.as_error()))));
    }
    let (failed, all) = (failures.len(), cases.len());
    assert!(failures.is_empty(), "{failed} of the {all} cases of `{suite}` failed:{}", failures.concat());
}

pub(super) fn fail<T>(message: impl Into<String>) -> Outcome<T> {
    Err(HandlerError::new(message.into()))
}

pub(super) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { fail(message()) }
}

pub(super) fn ensure_equal<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Outcome {
    ensure(found == expected, || format!("{what}: found {found:?}, expected {expected:?}"))
}

pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
