//! Programs that show how reflex is used, in `src/bin`: run one with `cargo run -p reflex-examples --bin outbox`.
//!
//! - `outbox`: a web service that writes events in the transactions that change its state, and consumers that react.
//! - `testing`: a consumer with the tests that its author would write.
//! - `custom_cursors`: a cursor store in a JSON file, held against the contract.
//! - `two_services`: two processes that react to each other's events over gRPC.
//!
//! The tests of this package run each of them and compare its output.

/// The examples of the READMEs, compiled and run.
#[cfg(doctest)]
mod readmes {
    #[doc = include_str!("../../README.md")]
    mod root {}
    #[doc = include_str!("../../reflex-core/README.md")]
    mod core {}
    #[doc = include_str!("../../reflex-grpc/README.md")]
    mod grpc {}
    #[doc = include_str!("../../migrations/README.md")]
    mod migrations {}
}
