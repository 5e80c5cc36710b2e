//! The command `reflex`: streams of events in SQL tables, from the command line.
//!
//! [`args`] says what can be asked, [`commands`] does it, [`demo`] is the command that shows the rest at work.

mod address;
mod args;
mod commands;
mod database;
mod demo;
mod exit;
#[cfg(test)]
mod fuzz;
mod interrupt;
mod logging;
mod ndjson;
mod output;
mod place;
mod progress;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::parse();
    logging::start();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("start the async runtime")),
    };
    let result = runtime.block_on(commands::run(cli));
    // A read of the terminal or a write to a pipe that nobody reads cannot be cancelled, only left behind.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
