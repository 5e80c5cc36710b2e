//! End-to-end tests: chaos, outages, and what holds a stream back.

#![expect(clippy::print_stderr, clippy::unwrap_used, reason = "a test fails by it, and tells figures")]

mod abandoned;
mod attacks;
mod chaos;
mod naive;
mod outages;
mod processes;
mod support;
mod waiting;
mod wake_up;
