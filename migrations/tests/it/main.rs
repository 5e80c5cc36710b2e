//! Every database is put through the same suite, and through what is particular to it.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is meant")]

mod mariadb;
mod postgres;
mod sqlite;
mod suite;
