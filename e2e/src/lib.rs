//! Writers and readers that torment an events table, for the tests of this crate and the programs that they start.
//!
//! [`Workload`] writes to a table in every way that a service may, and tells what it committed. [`readers`] follow the table
//! meanwhile and note what they are handed. [`Record::check`] holds the one against the other.

mod backend;
mod effects;
mod naive;
mod outcome;
pub mod readers;
mod record;
mod seed;
mod workload;
mod writer;

pub use self::{
    backend::Backend,
    effects::{check_all_effects, make_effects, write_effects},
    naive::naive,
    outcome::Outcome,
    record::{Goal, Goals, Record},
    seed::{duration, seed},
    workload::{Pace, Tally, Workload, begin_with_rows, insert_statement},
};
