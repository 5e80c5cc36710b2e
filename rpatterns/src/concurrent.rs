use reflex_core::Consumer;

use crate::workers::{Route, Workers};

/// Handles up to `n` events at once, in no order: each goes to whichever task is free.
///
/// For handlers that wait for something else and do not depend on each other. The cursor, of any kind, moves only over events
/// that are all done. Each task works with a clone of `inner`. The rest is said at [`Workers`].
///
/// # Errors
///
/// An `n` of 0 is an error of each run, before its stream is opened.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::concurrent;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// events.append(NewEvent::new("order-12", 1));
/// let thank = consumer_fn("thank", |event: Event| async move {
///     println!("a mail about {}", event.foreign_id());
///     Ok(())
/// });
/// let mut spec = Spec::new(events, MemoryCursors::new(), concurrent(16, thank)).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// # });
/// ```
pub fn concurrent<K: Consumer + Clone + 'static>(n: usize, inner: K) -> Workers<K> {
    Workers::cloned(n, Route::Any, inner)
}
