//! Tests for those who write reflex sources, cursor stores and consumers.
//!
//! ```
//! use std::time::Duration;
//!
//! use reflex_core::{MemoryCursors, MemoryEvents, NewEvent, Spec, run};
//! use reflex_testing::{History, ScriptedConsumer, Step};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let events = MemoryEvents::new();
//! for id in 1..=3 {
//!     events.append(NewEvent::new(id, 1));
//! }
//!
//! let consumer = ScriptedConsumer::new("billing").at(1, Step::fail("the card was declined"));
//! let calls = consumer.calls();
//! let mut spec = Spec::new(events, MemoryCursors::new(), consumer).to_head();
//! assert_eq!(run(&mut spec).await.unwrap_err().event_id(), Some(&2.into()));
//! assert!(run(&mut spec).await.unwrap_err().is_head_reached());
//!
//! let mut history = History::new();
//! history.extend(calls.consumed_ids());
//! assert!(history.check(&[1, 2, 3]).is_err(), "event 2 was handed over twice");
//! # });
//! ```
//!
//! # Main types
//!
//! - [`conformance`]: every obligation of a [`StreamFunc`](reflex_core::StreamFunc), of a
//!   [`CursorStore`](reflex_core::CursorStore) and of a [`DeadLetterStore`](reflex_core::DeadLetterStore) as a test case, to run against an implementation.
//! - [`History`] and [`check_effects`]: was anything lost, repeated or reordered?
//! - [`ScriptedConsumer`]: a consumer that does what it is told and remembers what it was asked.
//! - [`collect`], [`await_cursor`], [`eventually`], [`poll_times`]: what most tests need.
//!
//! # Not here
//!
//! Anything that knows a database or a broker. The in-memory source and store with their fault injection are in
//! `reflex-core`.

pub mod conformance;
mod consumer;
mod history;
mod wait;

pub use self::{
    consumer::{Call, Calls, ScriptedConsumer, Step},
    history::{History, Report, Violation, Violations, check_effects},
    wait::{await_cursor, collect, eventually, poll_times},
};
