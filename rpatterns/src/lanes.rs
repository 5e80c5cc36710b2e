use reflex_core::Consumer;

use crate::{
    Key,
    workers::{Route, Workers},
};

/// Spreads the events of one stream over `n` tasks, so that events with the same key are handled one after the other, in
/// their order.
///
/// The stream is read once, and there is one cursor, which knows nothing of lanes: `n` and the key may change from one run to
/// the next, and nothing is lost. Each lane works with a clone of `inner`; [`keyed_lanes_with`] makes them one by one. The
/// rest is said at [`Workers`].
///
/// # Errors
///
/// An `n` of 0 is an error of each run, before its stream is opened. An error of the key's function ends the run.
///
/// # Examples
///
/// ```
/// use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
/// use rpatterns::{Key, keyed_lanes};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let events = MemoryEvents::new();
/// for step in 0..100 {
///     events.append(NewEvent::new(format!("order-{}", step % 10), 1));
/// }
/// let ship = consumer_fn("ship", |event: Event| async move {
///     println!("next step of {}", event.foreign_id());
///     Ok(())
/// });
/// let consumer = keyed_lanes(4, Key::by_foreign_id(), ship);
/// let cursors = MemoryCursors::new();
/// let mut spec = Spec::new(events, cursors.clone(), consumer).to_head();
/// assert!(run(&mut spec).await.unwrap_err().is_head_reached());
/// assert_eq!(cursors.all()["ship"], 100.into());
/// # });
/// ```
pub fn keyed_lanes<K: Consumer + Clone + 'static>(n: usize, key: Key, inner: K) -> Workers<K> {
    Workers::cloned(n, Route::ByKey(key), inner)
}

/// Makes the consumer of each lane by a function that is told its number, counted from 0; see [`keyed_lanes`].
///
/// The function is called once for the name and what is watched, with 0, and then for each lane at the start of each run. All
/// these consumers have the same name.
///
/// # Errors
///
/// As [`keyed_lanes`].
pub fn keyed_lanes_with<K: Consumer + 'static>(
    n: usize,
    key: Key,
    make: impl FnMut(usize) -> K + Send + 'static,
) -> Workers<K> {
    Workers::made(n, Route::ByKey(key), make)
}
