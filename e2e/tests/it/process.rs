//! The binary of this crate, in a process of its own.

use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

/// Another process, and what it says.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
    /// What was read of the next line.
    line: Vec<u8>,
}

impl Process {
    pub(crate) fn start(url: &str, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reflex-e2e"));
        command.arg(url).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("start another process")?;
        let lines = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Self { child, lines, line: Vec::new() })
    }

    /// The next whole line; what a killed process did not finish is none. May be dropped and called again.
    pub(crate) async fn line(&mut self) -> Result<Option<String>> {
        self.lines.read_until(b'\n', &mut self.line).await?;
        if self.line.pop() != Some(b'\n') {
            return Ok(None);
        }
        Ok(Some(String::from_utf8(std::mem::take(&mut self.line))?))
    }
    /// Kills it with SIGKILL; returns the whole lines that it had said by then.
    pub(crate) async fn kill(mut self) -> Result<Vec<String>> {
        self.child.start_kill().context("it does not end by itself")?;
        let mut lines = Vec::new();
        while let Some(line) = self.line().await? {
            lines.push(line);
        }
        self.child.wait().await?;
        Ok(lines)
    }
}
