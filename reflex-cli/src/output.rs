//! Stdout, without blocking and without a system call per line.

use std::{fmt::Display, io};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Stdout};

use crate::{exit::OutputClosed, table::printable_lines};

const BUFFER: usize = 64 * 1024;

/// Lines for stdout. They are written when enough have come together, and by [`flush`](Output::flush).
#[derive(Debug)]
pub(crate) struct Output {
    buffer: Vec<u8>,
    stdout: Stdout,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::with_capacity(BUFFER), stdout: tokio::io::stdout() }
    }

    /// Adds a line, or several, for people: what a terminal would obey is escaped.
    pub(crate) async fn line(&mut self, line: impl Display) -> Result<()> {
        self.with(|buffer| io::Write::write_all(buffer, printable_lines(&line.to_string()).as_bytes())).await
    }

    /// Adds a value as JSON on a line of its own.
    pub(crate) async fn json(&mut self, value: &impl Serialize) -> Result<()> {
        self.with(|buffer| serde_json::to_writer(buffer, value).map_err(io::Error::from)).await
    }

    /// Adds a line that `write` writes.
    pub(crate) async fn with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<()> {
        write(&mut self.buffer).context("write a line of output")?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    /// Whether there is nothing to flush.
    pub(crate) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Writes what was added.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        let written = self.write_out().await;
        self.buffer.clear();
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
            result => result.context("write to stdout"),
        }
    }

    async fn write_out(&mut self) -> io::Result<()> {
        self.stdout.write_all(&self.buffer).await?;
        self.stdout.flush().await
    }
}
