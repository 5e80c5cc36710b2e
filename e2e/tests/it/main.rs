//! End-to-end tests: chaos, faults, and what holds a stream back.

#![expect(clippy::print_stderr, clippy::unwrap_used, reason = "a test fails by it, and tells figures")]

mod abandoned;
mod attacks;
mod chaos;
mod data;
mod exactly_once;
mod faults;
mod lanes;
mod naive;
mod observability;
mod parking;
mod process;
mod runtimes;
mod support;
mod waiting;
mod wake_up;
mod wake_ups;
