//! The contracts of the in-memory stores and the behaviour of the run loop.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod buffered;
mod conformance;
mod dropping;
mod fail_fast;
mod fairness;
mod flushing;
mod fn_consumer;
mod health;
mod lag;
mod metrics;
mod progress;
mod shapes;
mod shutdown;
mod starts;
mod support;
#[cfg(feature = "opentelemetry")]
mod telemetry;
mod traces;
