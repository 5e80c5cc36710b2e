//! Other processes: this program, called again.

use anyhow::Result;

/// What this program does as another process.
#[derive(Debug, clap::Subcommand)]
pub enum Child {}

/// Does it.
///
/// # Errors
///
/// If it fails.
pub fn serve(child: Child) -> Result<()> {
    match child {}
}
