//! Prints a random history for `git fast-import`, to try the demo on a large repository:
//!
//! ```text
//! git init --bare --initial-branch=main large.git
//! cargo run -p reflex-cli --example random_history -- 50000 | git -C large.git fast-import --date-format=raw-permissive
//! cargo run --release -p reflex-cli -- demo --repo large.git
//! ```

use std::io::{self, Write};

#[path = "../tests/it/history.rs"]
mod history;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(commits)), seed) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: random_history COMMITS [SEED]"));
    };
    let commits = u32::try_from(commits).map_err(io::Error::other)?;
    io::stdout().write_all(&history::random_history(commits, seed.and_then(Result::ok).unwrap_or(1)))
}
