use std::fmt::Debug;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::port::free_port;
use crate::process::{ends_within, kill_with_children, signal};
use crate::sandbox::Sandbox;
use crate::wait::wait_until;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "server.log";
const LOG_LINES_IN_ERROR: usize = 40;
/// How often another port is tried when somebody else was faster to listen on the chosen one.
const PORT_TRIES: usize = 3;

/// What can be done with every server.
macro_rules! server_methods {
    () => {
        /// The address on which the server listens, the same after a restart.
        pub fn addr(&self) -> std::net::SocketAddr {
            self.server.addr()
        }

        /// The id of the server's main process; None while it is stopped.
        pub fn pid(&self) -> Option<u32> {
            self.server.pid()
        }

        /// Everything the server has logged.
        ///
        /// # Errors
        ///
        /// If the log cannot be read.
        pub fn log(&self) -> Result<String> {
            self.server.log()
        }

        /// Kills all processes of the server with SIGKILL; does nothing if it is stopped.
        ///
        /// # Errors
        ///
        /// If they are not gone within ten seconds.
        pub fn kill(&self) -> Result<()> {
            self.server.kill()
        }
    };
}
pub(crate) use server_methods;

/// What differs between the database servers.
pub(crate) trait Program: Debug {
    const NAME: &'static str;

    /// The command that starts the server, its data being ready in the sandbox.
    fn command(&self, sandbox: &Sandbox, port: u16) -> Command;

    /// Whether the server that runs as `pid` accepts connections; `log` is what it wrote since
    /// its start.
    fn is_ready(&self, sandbox: &Sandbox, pid: u32, log: &str) -> bool;

    /// Clears away what a killed server leaves outside of the sandbox.
    fn after_kill(&self, sandbox: &Sandbox) -> Result<()>;
}

/// A server process in its sandbox. Dropping it kills the process and removes the sandbox.
#[derive(Debug)]
pub(crate) struct Server<P: Program> {
    pub(crate) program: P,
    pub(crate) sandbox: Sandbox,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl<P: Program> Server<P> {
    pub(crate) fn start(program: P, sandbox: Sandbox) -> Result<Self> {
        let mut server = Self { program, sandbox, port: 0, child: Mutex::new(None) };
        for _ in 1..PORT_TRIES {
            server.port = free_port()?;
            match server.launch() {
                Err(_) if server.log()?.contains("already in use") => {}
                outcome => return outcome.map(|()| server),
            }
        }
        server.port = free_port()?;
        server.launch().map(|()| server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    pub(crate) fn log(&self) -> Result<String> {
        let path = self.sandbox.path(LOG);
        let log = fs::read(&path).map_err(|e| Error::io(format!("read {}", path.display()), e))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    pub(crate) fn stop(&self, how: Signal) -> Result<()> {
        let mut slot = self.child();
        let Some(child) = slot.as_mut() else {
            return Ok(());
        };
        signal(child, how)?;
        if !ends_within(child, STOP_LIMIT)? {
            return Err(self.failure(&format!("stop with {how:?}: not within {STOP_LIMIT:?}")));
        }
        self.forget(&mut slot)
    }

    pub(crate) fn ask_to_stop(&self, how: Signal) -> Result<()> {
        self.child().as_ref().map_or(Ok(()), |child| signal(child, how))
    }

    pub(crate) fn kill(&self) -> Result<()> {
        let mut slot = self.child();
        let Some(child) = slot.as_mut() else {
            return Ok(());
        };
        kill_with_children(child)?;
        self.forget(&mut slot)?;
        self.program.after_kill(&self.sandbox)
    }

    pub(crate) fn restart(&self, how: Signal) -> Result<()> {
        self.stop(how)?;
        self.launch()
    }

    fn launch(&self) -> Result<()> {
        let mut slot = self.child();
        let logged = self.log().map_or(0, |log| log.len());
        let log = self.open_log()?;
        let child = self.program.command(&self.sandbox, self.port).stdout(log.0).stderr(log.1).spawn();
        let child = slot.insert(child.map_err(|e| Error::io(format!("start {}", P::NAME), e))?);
        let pid = child.id();
        let mut ended = None;
        let ready = wait_until(START_LIMIT, || {
            ended = child.try_wait().transpose();
            let log = self.log().unwrap_or_default();
            ended.is_some() || self.program.is_ready(&self.sandbox, pid, log.get(logged..).unwrap_or(""))
        });
        match ended {
            None if ready => return Ok(()),
            None => kill_with_children(child)?,
            Some(_) => {}
        }
        self.forget(&mut slot)?;
        let cause = ended.map_or(format!("not ready within {START_LIMIT:?}"), |e| format!("it ended: {e:?}"));
        Err(self.failure(&format!("start: {cause}")))
    }

    fn open_log(&self) -> Result<(File, File)> {
        let path = self.sandbox.path(LOG);
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|file| Ok((file.try_clone()?, file)))
            .map_err(|e| Error::io(format!("open {}", path.display()), e))
    }

    fn forget(&self, slot: &mut Option<Child>) -> Result<()> {
        slot.take().map_or(Ok(()), |child| self.sandbox.forget(child.id()))
    }

    fn failure(&self, what: &str) -> Error {
        let log = self.log().unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LOG_LINES_IN_ERROR)..].join("\n");
        Error::new(format!("{} on port {}: {what}; its log ends:\n{end}", P::NAME, self.port))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Program> Drop for Server<P> {
    #[expect(clippy::print_stderr, reason = "a drop has no other way to report")]
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("stop {}: {error}", P::NAME);
        }
    }
}
