//! Streams over loopback: the bytes, the contract, how streams end, what is refused, and what a slow reader costs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod back_pressure;
mod bad_input;
mod conformance;
mod generated;
mod loopback;
mod lost_connection;
mod releasing;
mod statuses;
mod stopping;
mod wire;
