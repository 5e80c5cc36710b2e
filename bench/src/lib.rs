//! Measures the reflex crates beside what they would be replaced with.
//!
//! Each row is measured in turns with its reference: reference, ours, reference, ours, so that a machine that grows slower
//! or faster meanwhile does so for both. `cargo xtask bench` starts the servers and runs this; BENCHMARKS.md says what the
//! rows mean.

#![expect(clippy::print_stderr, reason = "the one caller is a program, and a run takes minutes")]

mod backend;
mod bench;
mod child;
mod filter;
mod latency;
mod machine;
mod measure;
mod ready;
mod report;
mod rows;
mod specs;
mod writer;

pub use self::{
    bench::{Bench, Options, Scale},
    child::{Child, serve},
    filter::chosen,
    report::{Report, Row},
    rows::measure,
};
