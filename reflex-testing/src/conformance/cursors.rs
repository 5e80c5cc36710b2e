use std::time::Duration;

use futures_util::future::{join_all, try_join, try_join_all};
use reflex_core::{Cursor, CursorStore, Error, HandlerError};
use tokio::time::sleep;

use super::runner::{Case, Outcome, ensure, ensure_equal, fail, run_cases};
use crate::poll_times;

/// What a cursor store is capable of. The default is everything that a store of this project has to be capable of.
///
/// # Examples
///
/// ```
/// use reflex_testing::conformance::CursorCapabilities;
///
/// let capabilities = CursorCapabilities { text: false, ..CursorCapabilities::default() };
/// # let _ = capabilities;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorCapabilities {
    /// It keeps cursors that are not integers; otherwise it refuses them. Default: true.
    pub text: bool,
    /// Names that differ only in case or in trailing spaces are different consumers. Default: true.
    pub exact_names: bool,
}

impl Default for CursorCapabilities {
    fn default() -> Self {
        Self { text: true, exact_names: true }
    }
}

/// One namespace of a cursor store, empty at first, and any number of stores that share it.
///
/// Closures to a future of a store are harnesses.
pub trait CursorHarness: Send + Sync {
    /// The store under test.
    type Store: CursorStore + 'static;

    /// Opens another store of the same cursors, as another process would.
    ///
    /// # Errors
    ///
    /// If it cannot; the case fails.
    ///
    /// # Cancel safety
    ///
    /// It is not dropped before it is done, unless a case takes too long.
    fn store(&self) -> impl Future<Output = Result<Self::Store, HandlerError>> + Send;
}

impl<F, Fut, C> CursorHarness for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<C, HandlerError>> + Send,
    C: CursorStore + 'static,
{
    type Store = C;

    async fn store(&self) -> Result<C, HandlerError> {
        self().await
    }
}

/// Runs every case of the [`CursorStore`] contract.
///
/// `factory` is called with the name of each case and makes a namespace for it. Cases flush after each write, so that
/// stores that delay writes can be tested as well.
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
/// ```
/// use reflex_core::MemoryCursors;
/// use reflex_testing::conformance::{CursorCapabilities, cursor_store};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let factory = |_case| async {
///     let cursors = MemoryCursors::new();
///     Ok(move || std::future::ready(Ok(cursors.clone())))
/// };
/// cursor_store(factory, CursorCapabilities::default()).await;
/// # });
/// ```
pub async fn cursor_store<H, Fut>(factory: impl Fn(&'static str) -> Fut, capabilities: CursorCapabilities)
where
    H: CursorHarness,
    Fut: Future<Output = Result<H, HandlerError>>,
{
    let cases: &[Case<Bench<H>>] = &[
        ("none at first", |bench| Box::pin(none_at_first(bench))),
        ("set and get", |bench| Box::pin(set_and_get(bench))),
        ("integers of any size", |bench| Box::pin(integers_of_any_size(bench))),
        ("backwards is refused", |bench| Box::pin(backwards_is_refused(bench))),
        ("unchanged is told apart", |bench| Box::pin(unchanged_is_told_apart(bench))),
        ("names are independent", |bench| Box::pin(names_are_independent(bench))),
        ("names that differ in little", |bench| Box::pin(names_that_differ_in_little(bench))),
        ("concurrent writers", |bench| Box::pin(concurrent_writers(bench))),
        ("concurrent first writes", |bench| Box::pin(concurrent_first_writes(bench))),
        ("visible from a second instance", |bench| Box::pin(visible_from_a_second_instance(bench))),
        ("text", |bench| Box::pin(text(bench))),
        ("flush", |bench| Box::pin(flush(bench))),
        ("dropped futures", |bench| Box::pin(dropped_futures(bench))),
    ];
    let bench = async |case| Ok(Bench { harness: factory(case).await?, capabilities: capabilities.clone() });
    run_cases("cursor_store", cases, bench).await;
}

struct Bench<H> {
    harness: H,
    capabilities: CursorCapabilities,
}

impl<H: CursorHarness> Bench<H> {
    async fn store(&self) -> Outcome<H::Store> {
        self.harness.store().await
    }
}

async fn none_at_first<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    ensure_stored(&store, "billing", None).await?;
    store.flush().await?;
    ensure_stored(&store, "billing", None).await
}

async fn set_and_get<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    for id in [1, 2, 9, 10, 99, 100, 101, 1_000_000] {
        put(&store, "billing", id).await?;
        ensure_stored(&store, "billing", Some(id.into())).await?;
        ensure_stored(&store, "billing", Some(id.into())).await?;
    }
    Ok(())
}

/// Also tells a store that compares as text or as floating-point numbers.
async fn integers_of_any_size<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    const ASCENDING: [i64; 10] =
        [i64::MIN, -10, -9, -1, 0, 1, 9_007_199_254_740_992, 9_007_199_254_740_993, i64::MAX - 1, i64::MAX];
    let store = bench.store().await?;
    for id in ASCENDING {
        put(&store, "billing", id).await?;
        ensure_stored(&store, "billing", Some(id.into())).await?;
    }
    for id in ASCENDING.into_iter().rev().skip(1) {
        ensure_backwards(put(&store, "billing", id).await, "billing", i64::MAX, id)?;
    }
    ensure_stored(&store, "billing", Some(i64::MAX.into())).await
}

async fn backwards_is_refused<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, "billing", 100).await?;
    for id in [99, 20, 0, -1] {
        ensure_backwards(put(&store, "billing", id).await, "billing", 100, id)?;
        ensure_stored(&store, "billing", Some(100.into())).await?;
    }
    let other = bench.store().await?;
    ensure_backwards(put(&other, "billing", 99).await, "billing", 100, 99)?;
    ensure_stored(&other, "billing", Some(100.into())).await?;
    put(&store, "billing", 101).await?;
    ensure_stored(&store, "billing", Some(101.into())).await
}

async fn unchanged_is_told_apart<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, "billing", 5).await?;
    match put(&store, "billing", 5).await {
        Err(error) => {
            ensure(error.is_cursor_unchanged(), || format!("setting an equal cursor failed otherwise: {error}"))?
        }
        Ok(()) => return fail("setting an equal cursor succeeded"),
    }
    ensure_stored(&store, "billing", Some(5.into())).await?;
    put(&store, "billing", 6).await?;
    ensure_stored(&store, "billing", Some(6.into())).await
}

async fn names_are_independent<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let long = "x".repeat(200);
    let names = [
        "billing",
        "billing_2",
        "billing-1_of_8",
        "a b",
        "a:b",
        "a/b",
        "a.b",
        "%",
        "_",
        "a'b",
        "a\"b",
        "a`b",
        "a\\b",
        "a;--",
        "$1",
        "?",
        "{a}",
        "[a]",
        "*",
        "a\nb",
        "名前",
        "🦀",
        "ß",
        &long,
        &long[1..],
    ];
    ensure_separate(bench, &names).await
}

async fn names_that_differ_in_little<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    if !bench.capabilities.exact_names {
        return Ok(());
    }
    ensure_separate(bench, &["billing", "Billing", "BILLING", "billing ", " billing", "billíng", "strasse", "straße"])
        .await
}

async fn ensure_separate<H: CursorHarness>(bench: &Bench<H>, names: &[&str]) -> Outcome {
    let store = bench.store().await?;
    for (id, name) in (1..).zip(names) {
        ensure_stored(&store, name, None).await?;
        put(&store, name, id).await?;
    }
    for (id, name) in (1..).zip(names) {
        ensure_stored(&store, name, Some(id.into())).await?;
    }
    Ok(())
}

async fn concurrent_writers<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    const WRITERS: i64 = 8;
    const LAST: i64 = 200;
    let writers = try_join_all((0..WRITERS).map(|writer| async move {
        let store = bench.store().await?;
        for id in (1..=LAST).filter(|id| id % WRITERS == writer) {
            match put(&store, "billing", id).await {
                Err(error) if error.is_cursor_backwards() && id < LAST => {}
                result => result?,
            }
        }
        Outcome::Ok(())
    }));
    try_join(writers, watch(bench, LAST)).await.map(drop)
}

/// Reads a cursor until it is at `last`, and fails if it ever moves backwards.
async fn watch<H: CursorHarness>(bench: &Bench<H>, last: i64) -> Outcome {
    let store = bench.store().await?;
    let mut highest = 0;
    while highest < last {
        let stored = store.get("billing").await?.and_then(|cursor| cursor.as_i64()).unwrap_or(0);
        ensure(stored >= highest, || format!("the stored cursor moved from {highest} back to {stored}"))?;
        highest = stored;
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn concurrent_first_writes<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let stores = join_all((0..8).map(|_| bench.store())).await.into_iter().collect::<Outcome<Vec<_>>>()?;
    for round in 0..20 {
        let name = &format!("billing-{round}");
        let writes = join_all((1..).zip(&stores).map(|(id, store)| async move { (id, put(store, name, id).await) }));
        for (id, result) in writes.await {
            match result {
                Err(error) if error.is_cursor_backwards() && id < 8 => {}
                result => result?,
            }
        }
        let fresh = bench.store().await?;
        ensure_stored(&fresh, name, Some(8.into())).await?;
    }
    Ok(())
}

async fn visible_from_a_second_instance<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let (first, second) = (bench.store().await?, bench.store().await?);
    put(&first, "billing", 1).await?;
    ensure_stored(&second, "billing", Some(1.into())).await?;
    put(&second, "billing", 2).await?;
    ensure_stored(&first, "billing", Some(2.into())).await?;
    drop((first, second));
    ensure_stored(&bench.store().await?, "billing", Some(2.into())).await
}

async fn text<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    let long = format!("logs/2026/|{}", "9".repeat(180));
    let cursors =
        ["1526919030474-55", "1526919030474-6", "a|02|17", "007", "9223372036854775808", "a'b\"c\\d", "日付", &long];
    if !bench.capabilities.text {
        return refuses_text(&store, cursors[0]).await;
    }
    for cursor in cursors {
        put(&store, "billing", cursor).await?;
        ensure_stored(&store, "billing", Some(cursor.into())).await?;
        ensure_stored(&bench.store().await?, "billing", Some(cursor.into())).await?;
    }
    put(&store, "billing", 3).await?;
    ensure_stored(&store, "billing", Some(3.into())).await
}

async fn refuses_text<C: CursorStore>(store: &C, cursor: &str) -> Outcome {
    put(store, "billing", 3).await?;
    ensure(put(store, "billing", cursor).await.is_err(), || format!("it accepted the cursor {cursor:?}"))?;
    ensure_stored(store, "billing", Some(3.into())).await
}

async fn flush<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    store.set("billing", &1.into()).await?;
    store.set("shipping", &2.into()).await?;
    store.flush().await?;
    store.flush().await?;
    let other = bench.store().await?;
    ensure_stored(&other, "billing", Some(1.into())).await?;
    ensure_stored(&other, "shipping", Some(2.into())).await
}

async fn dropped_futures<H: CursorHarness>(bench: &Bench<H>) -> Outcome {
    let store = bench.store().await?;
    put(&store, "billing", 1).await?;
    let mut lowest = 1;
    for (polls, id) in (0..20).zip(2..) {
        // A write that was dropped may still be on its way to the store and land later.
        drop(poll_times(polls, store.set("billing", &id.into())).await);
        drop(poll_times(polls, store.flush()).await);
        drop(poll_times(polls, store.get("billing")).await);
        let stored = store.get("billing").await?.and_then(|cursor| cursor.as_i64());
        ensure(stored.is_some_and(|stored| (lowest..=id).contains(&stored)), || {
            format!("after the cursor {id} was dropped over {lowest} the store holds {stored:?}")
        })?;
        lowest = stored.unwrap_or(lowest);
    }
    put(&store, "billing", 1_000).await?;
    ensure_stored(&store, "billing", Some(1_000.into())).await
}

/// Sets a cursor and sees to it that it is written.
async fn put<C: CursorStore>(store: &C, name: &str, cursor: impl Into<Cursor>) -> Result<(), Error> {
    store.set(name, &cursor.into()).await?;
    store.flush().await
}

async fn ensure_stored<C: CursorStore>(store: &C, name: &str, expected: Option<Cursor>) -> Outcome {
    ensure_equal(&format!("the cursor of {name:?}"), store.get(name).await?, expected)
}

/// The error has to say that the cursor would move backwards, of whom, and between which positions.
fn ensure_backwards(result: Result<(), Error>, name: &str, stored: i64, new: i64) -> Outcome {
    let Err(error) = result else {
        return fail(format!("it moved the cursor from {stored} back to {new}"));
    };
    ensure(error.is_cursor_backwards(), || format!("setting {new} over {stored} failed otherwise: {error}"))?;
    let text = error.to_string();
    let told = text.contains(name) && text.contains(&stored.to_string()) && text.contains(&new.to_string());
    ensure(told, || format!("the error does not name `{name}`, {stored} and {new}: {text}"))
}
