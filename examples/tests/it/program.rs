//! A running example.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// How long to wait for a line.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that is killed if the test ends before it does.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts the outbox on a free port and returns the address that it prints.
    pub(crate) fn outbox(database: &Path) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outbox"))
            .env("PORT", "0")
            .env("DATABASE", database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = read(child.stdout.take().unwrap());
        let program = Self { child, lines };
        let line = program.line();
        let address = line.strip_prefix("listening on http://").expect("it says where it listens");
        (program, address.to_owned())
    }

    /// Starts one of the two services on its own; it prints where its health is and puts its address in a file.
    pub(crate) fn service(name: &str, folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_two_services"));
        let mut child = command.arg(name).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = read(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("it prints another line")
    }

    /// Asks it to end, and returns the lines that it still prints.
    #[track_caller]
    pub(crate) fn stop(mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return (self.child.wait().unwrap(), lines),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it has printed {lines:?}"),
            }
        }
    }
}

/// The lines that a program prints, until it ends.
fn read(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = sync_channel(100);
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    lines
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
