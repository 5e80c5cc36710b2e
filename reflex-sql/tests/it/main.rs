//! The tables on every database: the contracts of the core, and the attacks on the proof.

mod attacks_mariadb;
mod attacks_postgres;
mod backfill;
mod bench;
mod conformance;
mod cursors;
mod database;
mod errors;
mod from_head;
mod gaps;
mod health;
mod inserting;
mod late_pages;
mod letters;
mod metrics;
mod relay;
mod schema;
mod sharing;
mod transactional;
mod transactional_runners;
