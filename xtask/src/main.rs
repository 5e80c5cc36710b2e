//! Development tasks: `cargo xtask <task>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod bench;
mod chaos;
mod ci;
mod install;
mod packages;
mod runner;
mod servers;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::runner::Runner;

/// Development tasks of the reflex workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs all tests, those that need a database server too.
    ///
    /// Starts private PostgreSQL, MariaDB and Redis servers for it, and stops them again. As root
    /// on Debian it installs what is missing. If REFLEX_TEST_POSTGRES_URL,
    /// REFLEX_TEST_MARIADB_URL or REFLEX_TEST_REDIS_URL is set, that server is used instead.
    Test {
        /// Run only tests whose names contain one of these
        filters: Vec<String>,
    },
    /// Starts the servers for tests and keeps them until Ctrl-C.
    ///
    /// Prints the lines that make a shell use them, so that `cargo test -- --include-ignored`
    /// works there.
    Servers,
    /// Runs the chaos tests and the drills with faults for longer, one after the other.
    ///
    /// Prints a line for each, and then all of them as a Markdown table. A test that fails shows the
    /// seed of its random choices; REFLEX_CHAOS_SEED repeats them. The servers are those of `test`.
    /// A full disk is part of it only where a tmpfs may be mounted, as by root. Ctrl-C ends it with the
    /// table of what was done so far.
    Chaos {
        /// How long all of them take together, about; with less than 5 each takes its shortest form,
        /// which comes to nearly 5 as well
        #[arg(long, default_value_t = 15, value_parser = chaos::minutes)]
        minutes: u32,
        /// Print one JSON object per line instead
        #[arg(long)]
        json: bool,
    },
    /// Measures everything beside what it would be replaced with, and prints one table.
    ///
    /// Starts private PostgreSQL and MariaDB servers for it that flush each commit to disk, and stops them again.
    Bench(bench::Args),
    /// Runs everything that continuous integration checks.
    Ci,
}

fn main() -> ExitCode {
    match run(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let runner = Runner::new()?;
    match task {
        Task::Test { filters } => test::run(&runner, &filters),
        Task::Servers => servers::serve(&runner),
        Task::Chaos { minutes, json } => chaos::run(&runner, minutes, json),
        Task::Bench(args) => bench::run(&runner, &args),
        Task::Ci => ci::run(&runner),
    }
}
