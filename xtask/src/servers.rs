//! The servers that tests use.

use std::env;
use std::io::{self, Write};

use anyhow::{Context, Result};
use test_servers::{MariaDb, Postgres, Redis};

use crate::install;
use crate::runner::Runner;

const POSTGRES_URL: &str = "REFLEX_TEST_POSTGRES_URL";
const MARIADB_URL: &str = "REFLEX_TEST_MARIADB_URL";
const REDIS_URL: &str = "REFLEX_TEST_REDIS_URL";

/// The servers started for tests, and the environment that leads to them.
#[derive(Debug)]
pub(crate) struct Servers {
    postgres: Option<Postgres>,
    mariadb: Option<MariaDb>,
    redis: Option<Redis>,
}

impl Servers {
    /// Starts each server that `wanted` asks for by the name of its variable.
    fn start(runner: &Runner, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let (postgres, mariadb, redis) = (wanted(POSTGRES_URL), wanted(MARIADB_URL), wanted(REDIS_URL));
        install::ensure(runner, postgres, mariadb, redis)?;
        let postgres = postgres.then(Postgres::start).transpose()?;
        runner.check()?;
        let mariadb = mariadb.then(MariaDb::start).transpose()?;
        runner.check()?;
        let redis = redis.then(Redis::start).transpose()?;
        runner.check()?;
        Ok(Self { postgres, mariadb, redis })
    }

    /// Starts the servers whose variables are not set.
    pub(crate) fn start_missing(runner: &Runner) -> Result<Self> {
        Self::start(runner, |variable| env::var_os(variable).is_none())
    }

    /// Variables and URLs of the servers started.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let postgres = self.postgres.as_ref().map(|server| (POSTGRES_URL, server.url()));
        let mariadb = self.mariadb.as_ref().map(|server| (MARIADB_URL, server.url()));
        let redis = self.redis.as_ref().map(|server| (REDIS_URL, server.url()));
        postgres.into_iter().chain(mariadb).chain(redis).collect()
    }
}

/// Starts all servers, prints how to reach them, and keeps them until a signal comes.
pub(crate) fn serve(runner: &Runner) -> Result<()> {
    let servers = Servers::start(runner, |_| true)?;
    for (variable, url) in servers.environment() {
        println!("export {variable}={url}");
    }
    io::stdout().flush().context("write to standard output")?;
    eprintln!("servers are running; Ctrl-C stops them");
    runner.wait_for_signal();
    Ok(())
}
