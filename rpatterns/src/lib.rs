//! Patterns for reflex consumers: batches, lanes, retries, dead letters and more, one file each.
//!
//! A pattern takes a consumer and is one, so that they nest and read as they run:
//!
//! ```
//! use std::time::Duration;
//!
//! use reflex_core::{Event, HandlerError, MemoryCursors, MemoryDeadLetters, MemoryEvents, NewEvent, Spec, consumer_fn, run};
//! use rpatterns::{batch, dead_letter, retry};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let (events, letters) = (MemoryEvents::new(), MemoryDeadLetters::new());
//! for order in 1..=10 {
//!     events.append(NewEvent::new(order, 1));
//! }
//! let bill = consumer_fn("bill", |orders: Vec<Event>| async move {
//!     let spoiled = orders.iter().any(|order| order.foreign_id() == "7");
//!     if spoiled { Err(HandlerError::new("no such card")) } else { Ok(()) }
//! });
//! let delays = [Duration::from_secs(1), Duration::from_secs(10)];
//! let bill = batch(100, Duration::from_millis(50), dead_letter(letters.clone(), retry(delays, bill)));
//!
//! assert!(run(&mut Spec::new(events, MemoryCursors::new(), bill).to_head()).await.unwrap_err().is_head_reached());
//! assert_eq!(letters.open("bill").len(), 1, "the others are billed");
//! # });
//! ```
//!
//! # Which goes around which
//!
//! What collects or spreads events goes outside ([`keyed_lanes`], [`concurrent`](concurrent()), [`shard`], [`batch`](batch())), what
//! acts on failures inside ([`dead_letter`](dead_letter()), [`best_effort`](best_effort()), [`retry`](retry())), the handler
//! innermost. Patterns that act on failures refuse a consumer that answers later for its inputs.
//!
//! # Guarantees
//!
//! - *At least once, in order*, as without patterns. The cursor moves only over what is done, whatever is done first.
//! - *Errors that end a run pass through*: those that are expected, and those of a consumer that found
//!   [another runner](reflex_core::Error::is_fenced).
//! - *Bounded.* What is collected or on its way has a bound, which is an option.
//! - *Checked.* Options that cannot be used are an error of each run, before its stream is opened.
//!
//! # Not here
//!
//! Stores: dead letters in SQL tables and transactional consumers are in `reflex-sql`.

#[macro_use]
mod forward;

mod ack;
mod answers;
mod await_event;
mod batch;
mod best_effort;
mod bootstrap;
mod concurrent;
mod dead_letter;
mod delays;
mod isolate;
mod key;
mod lanes;
mod poll;
mod rate_limit;
mod read_through;
mod redrive;
mod retry;
mod run_forever;
mod shards;
mod window;
mod workers;

pub use self::{
    ack::{AckConsumer, AckEvent, ack},
    await_event::{await_event, await_event_or},
    batch::{Batch, batch, batch_by_len, batch_by_period},
    best_effort::{BestEffort, best_effort},
    bootstrap::{Bootstrap, bootstrap},
    concurrent::concurrent,
    dead_letter::{DeadLetterConsumer, dead_letter},
    delays::exponential,
    key::Key,
    lanes::{keyed_lanes, keyed_lanes_with},
    poll::{PollSource, poll_source},
    rate_limit::{RateLimit, rate_limit},
    read_through::{ReadThrough, read_through},
    redrive::{Redriven, redrive},
    retry::{Retry, RetryDecision, retry},
    run_forever::{RunForever, run_forever},
    shards::{Shard, shard, shard_specs, shards},
    workers::Workers,
};
