//! Event-stream consumers with persistent cursors: the vocabulary and the engine of reflex.
//!
//! A service reacts to what happened: it follows a stream of events, hands each to a piece of business logic, and keeps a
//! cursor so that it goes on where it stopped.
//!
//! ```
//! use reflex_core::{Event, MemoryCursors, MemoryEvents, NewEvent, Spec, consumer_fn, run};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (events, cursors) = (MemoryEvents::new(), MemoryCursors::new());
//! events.append(NewEvent::new("order-12", 1));
//!
//! let consumer = consumer_fn("ship", |event: Event| async move {
//!     assert_eq!(event.foreign_id(), "order-12");
//!     Ok(())
//! });
//! let mut spec = Spec::new(events, cursors.clone(), consumer).to_head();
//! let error = run(&mut spec).await.unwrap_err();
//! assert!(error.is_head_reached());
//! assert_eq!(cursors.all()["ship"], 1.into());
//! # });
//! ```
//!
//! # Main types
//!
//! [`StreamFunc`] opens a stream of [`Event`]s, a [`CursorStore`] keeps [`Cursor`]s, a [`Consumer`] is the business logic,
//! usually made by [`consumer_fn`]. A [`Spec`] holds the three together and [`run`] runs it.
//!
//! # Guarantees
//!
//! - *At least once, in order.* The cursor moves only when the consumer says that an event is done. What was consumed after
//!   the last stored cursor is delivered again after a crash.
//! - *Fail fast.* Any error ends the run and leaves the cursor in front of the event. Running again goes on there. Retries,
//!   skipping and dead letters are choices that a consumer makes, never defaults.
//! - *Bounded.* The engine holds one event at a time and spawns no task.
//!
//! # Features
//!
//! - `opentelemetry`: the span of an event, where DEBUG is switched on, continues the trace of its producer, and `SpanContext::current` gives the context
//!   for an event that is inserted. Without it the span carries the producer's ids as fields.
//!
//! # Not here
//!
//! Databases and brokers: see `reflex-sql`. One spec must be run by one process at a time; the engine does not elect it,
//! but integer cursors that would move backwards are refused.

mod buffered;
mod clock;
mod consumer;
mod cursor;
mod cursors;
mod dead_letters;
mod ends;
mod error;
mod event;
pub mod filters;
mod health;
mod input;
mod memory;
mod memory_dead_letters;
mod metrics;
mod run;
mod shutdown;
mod span;
mod span_context;
mod spec;
mod stream;
#[cfg(feature = "opentelemetry")]
mod telemetry;
mod wake_ups;

/// The crate that [`Metrics`] and [`Health`] are registered with, in the version that they take.
#[doc(no_inline)]
pub use prometheus;

pub use self::{
    buffered::BufferedCursors,
    consumer::{BoxConsumer, Consumer, Failure, FnConsumer, Monitoring, Progress, consumer_fn},
    cursor::Cursor,
    cursors::{BoxCursorStore, CursorStore, check_forward},
    dead_letters::{AttemptStore, DeadLetter, DeadLetterStore, Selection},
    error::{Error, HandlerError, Result},
    event::{Event, EventParts, EventType, NewEvent, NewEventParts},
    health::{Blocked, ConsumerHealth, ConsumerState, Health, HealthReport, LastError, StreamPosition},
    input::Input,
    memory::{MemoryCursors, MemoryEvents, Operation},
    memory_dead_letters::MemoryDeadLetters,
    metrics::{EventsTableMetrics, Metrics},
    run::{run, run_until},
    shutdown::Shutdown,
    span_context::SpanContext,
    spec::{BoxSpec, Spec},
    stream::{BoxEventStream, BoxStreamFunc, Opened, Start, StreamFunc, StreamOptions, StreamStatus},
    wake_ups::{BoxHints, BoxWakeUps, WakeUps},
};
