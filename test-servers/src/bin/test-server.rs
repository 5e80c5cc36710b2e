//! Starts one server, prints its URL and keeps it until the standard input ends.
#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::env;
use std::error::Error;
use std::io;

use test_servers::{MariaDb, Postgres, Redis};

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("postgres") => {
            let server = Postgres::start()?;
            keep(&server.url())
        }
        Some("mariadb") => {
            let server = MariaDb::start()?;
            keep(&server.url())
        }
        Some("redis") => {
            let server = Redis::start()?;
            keep(&server.url())
        }
        _ => Err("usage: test-server postgres | mariadb | redis".into()),
    }
}

fn keep(url: &str) -> Result<(), Box<dyn Error>> {
    println!("{url}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
