//! Private database servers for tests.
//!
//! [`Postgres`], [`MariaDb`] and [`Redis`] start real servers as child processes, each on a free
//! loopback port with its data in a temporary folder. [`Proxy`] stands in front of any TCP address and
//! cuts, stalls or delays its connections.
//!
//! Nothing stays behind: dropping a server ends it and removes its folder, and if the process
//! that started it is killed, a guardian process does the same.

mod error;
mod mariadb;
mod port;
mod postgres;
mod process;
mod programs;
#[cfg(feature = "proxy")]
mod proxy;
mod redis;
mod sandbox;
mod server;
mod user;
mod wait;

pub use crate::error::Error;
pub use crate::mariadb::{MariaDb, MariaDbOptions};
pub use crate::postgres::{Postgres, PostgresOptions, StopMode};
#[cfg(feature = "proxy")]
pub use crate::proxy::Proxy;
pub use crate::redis::{Redis, RedisOptions};
