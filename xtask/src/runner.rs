//! Running other programs so that a signal ends them and leaves time to clean up.

use std::env;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs programs one at a time, and passes SIGINT, SIGTERM and SIGHUP on to the one that runs.
///
/// After such a signal every further run fails, so that the task returns and its servers are
/// dropped. A second signal kills the program that still runs.
#[derive(Debug)]
pub(crate) struct Runner {
    state: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    interrupted: bool,
    group: Option<Pid>,
}

impl Runner {
    pub(crate) fn new() -> Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("watch for signals")?;
        let state = Arc::new(Shared::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || shared.pass_on(signals));
        Ok(Self { state })
    }

    /// A command for the cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Runs a program to its end; an error unless it succeeds.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let line = format!("{command:?}");
        let mut child = self.spawn(command).with_context(|| format!("run {line}"))?;
        self.succeed(&mut child).with_context(|| format!("run {line}"))
    }

    /// Runs a program to its end and returns what it writes to its standard output; an error unless it succeeds.
    pub(crate) fn output(&self, command: &mut Command) -> Result<Vec<u8>> {
        let line = format!("{command:?}");
        let mut child = self.spawn(command.stdout(Stdio::piped())).with_context(|| format!("run {line}"))?;
        let mut output = Vec::new();
        let read = child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut output)).transpose();
        self.succeed(&mut child).and(read.map_err(Into::into)).with_context(|| format!("run {line}"))?;
        Ok(output)
    }

    /// Fails if a signal has asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.state.lock().interrupted {
            bail!("stopped by a signal");
        }
        Ok(())
    }

    /// Returns when a signal asks to stop.
    pub(crate) fn wait_for_signal(&self) {
        let guard = self.state.lock();
        let waited = self.state.changed.wait_while(guard, |state| !state.interrupted);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Under the lock, so that a signal comes either before, and nothing starts, or after, and
    /// finds the group.
    fn spawn(&self, command: &mut Command) -> Result<Child> {
        let mut state = self.state.lock();
        if state.interrupted {
            bail!("stopped by a signal");
        }
        let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
        state.group = Some(Pid::from_child(&child));
        Ok(child)
    }

    fn succeed(&self, child: &mut Child) -> Result<()> {
        let status = self.wait(child)?;
        self.check()?;
        if !status.success() {
            bail!("it failed: {status}");
        }
        Ok(())
    }

    /// Forgets the group before the child is reaped, while its id cannot be anybody else's.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(Pid::from_child(child)), ended) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        self.state.lock().group = None;
        Ok(child.wait()?)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, mut signals: Signals) {
        for number in signals.forever() {
            let mut state = self.lock();
            let signal = match number {
                _ if state.interrupted => Signal::KILL,
                SIGINT => Signal::INT,
                SIGHUP => Signal::HUP,
                _ => Signal::TERM,
            };
            state.interrupted = true;
            if let Some(Err(error)) = state.group.map(|group| kill_process_group(group, signal)) {
                eprintln!("pass {signal:?} on: {error}");
            }
            self.changed.notify_all();
        }
    }
}
