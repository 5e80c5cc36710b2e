use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::error::Result;
use crate::programs::{Programs, system_folders};
use crate::sandbox::Sandbox;
use crate::server::{Program, Server, server_methods};

const PROGRAMS: Programs =
    Programs { variable: "REFLEX_REDIS_BIN_DIR", package: "redis-server", usual: system_folders };
const SERVER: [&str; 2] = ["redis-server", "valkey-server"];
const ACCOUNT: &str = "redis";
const CONFIGURATION: &str = "redis.conf";

/// What was answered survives the process, though not the machine.
const SETTINGS: [(&str, &str); 5] =
    [("bind", "127.0.0.1"), ("daemonize", "no"), ("save", "\"\""), ("appendonly", "yes"), ("appendfsync", "no")];

/// A private Redis server on a loopback port, with its data in a temporary folder.
///
/// It needs no password. The server stops and the folder goes when this is dropped, and also when
/// the process that started it ends in any other way.
///
/// All methods that start or stop the server block for up to some seconds; asynchronous code
/// calls them through `tokio::task::spawn_blocking`, for which they take `&self`.
///
/// # Examples
///
/// ```no_run
/// let server = test_servers::Redis::start()?;
/// println!("{}", server.url());
/// # Ok::<(), test_servers::Error>(())
/// ```
#[derive(Debug)]
pub struct Redis {
    server: Server<RedisProgram>,
}

impl Redis {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// If Redis is not installed (the message says what to do) or does not start (the message
    /// ends with its log).
    pub fn start() -> Result<Self> {
        Self::options().start()
    }

    /// Options for a server.
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// Tells whether Redis's program can be found.
    ///
    /// It is looked for in the folders of `REFLEX_REDIS_BIN_DIR` (separated by colons) if that is
    /// set, else in the system's folders and in `PATH`.
    ///
    /// # Errors
    ///
    /// If it is missing; the message says what to do.
    pub fn find() -> Result<()> {
        PROGRAMS.find(&SERVER).map(drop)
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        self.url_via(self.addr())
    }

    /// The URL of the server reached through `addr`, such as a proxy's.
    pub fn url_via(&self, addr: SocketAddr) -> String {
        format!("redis://{addr}/")
    }

    server_methods!();

    /// The folder with the server's data.
    pub fn data_dir(&self) -> PathBuf {
        self.server.sandbox.folder().to_path_buf()
    }

    /// Shuts the server down cleanly and waits for its end; does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// If it does not stop within a minute.
    pub fn stop(&self) -> Result<()> {
        self.server.stop(Signal::TERM)
    }

    /// Starts the server again with the same port and data, after a clean stop if it runs.
    ///
    /// # Errors
    ///
    /// If it does not stop or start within a minute each; the message ends with its log.
    pub fn restart(&self) -> Result<()> {
        self.server.restart(Signal::TERM)
    }
}

/// What differs from the defaults when a [`Redis`] starts.
///
/// The defaults suit tests: every write is in the append-only file before it is answered, and the
/// file is not flushed to disk.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct RedisOptions {
    settings: Vec<(String, String)>,
}

impl RedisOptions {
    /// Sets a directive of `redis.conf`, over the default of this crate.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// If Redis is not installed (the message says what to do) or does not start (the message
    /// ends with its log).
    pub fn start(self) -> Result<Redis> {
        let program = RedisProgram { path: PROGRAMS.find(&SERVER)? };
        let sandbox = Sandbox::new("redis", ACCOUNT)?;
        sandbox.write(CONFIGURATION, &self.configuration())?;
        Ok(Redis { server: Server::start(program, sandbox)? })
    }

    fn configuration(&self) -> String {
        let defaults = SETTINGS.iter().map(|(name, value)| format!("{name} {value}\n"));
        let settings = self.settings.iter().map(|(name, value)| format!("{name} {value}\n"));
        defaults.chain(settings).collect()
    }
}

#[derive(Debug)]
struct RedisProgram {
    path: PathBuf,
}

impl Program for RedisProgram {
    const NAME: &'static str = "Redis";

    fn command(&self, sandbox: &Sandbox, port: u16) -> Command {
        let mut command = sandbox.command(&self.path);
        command.arg(sandbox.path(CONFIGURATION)).arg("--port").arg(port.to_string());
        command.arg("--dir").arg(sandbox.folder());
        command
    }

    fn is_ready(&self, _sandbox: &Sandbox, _pid: u32, log: &str) -> bool {
        log.contains("Ready to accept connections")
    }

    fn after_kill(&self, _sandbox: &Sandbox) -> Result<()> {
        Ok(())
    }
}
