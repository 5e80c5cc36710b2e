use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::programs::{Programs, debian_postgres_folders};
use crate::sandbox::Sandbox;
use crate::server::{Program, Server, server_methods};

const PROGRAMS: Programs =
    Programs { variable: "REFLEX_POSTGRES_BIN_DIR", package: "postgresql", usual: debian_postgres_folders };
const ACCOUNT: &str = "postgres";
const SUPERUSER: &str = "postgres";
const DATA: &str = "data";

/// Speed over durability, and small enough for several servers on one machine.
const LIGHT: [(&str, &str); 3] = [("fsync", "off"), ("wal_level", "logical"), ("shared_buffers", "64MB")];
/// Room for every kind of test.
const SETTINGS: [(&str, &str); 7] = [
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "20"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // In the data folder, where a killed server leaves nothing behind.
    ("dynamic_shared_memory_type", "mmap"),
    ("max_worker_processes", "16"),
];

/// A private PostgreSQL server on a loopback port, with its data in a temporary folder.
///
/// The superuser `postgres` needs no password. The server stops and the folder goes when this
/// is dropped, and also when the process that started it ends in any other way.
///
/// All methods that start or stop the server block for up to some seconds; asynchronous code
/// calls them through `tokio::task::spawn_blocking`, for which they take `&self`.
///
/// # Examples
///
/// ```no_run
/// let server = test_servers::Postgres::start()?;
/// println!("{}", server.url());
/// # Ok::<(), test_servers::Error>(())
/// ```
#[derive(Debug)]
pub struct Postgres {
    server: Server<PostgresProgram>,
}

/// How [`Postgres::stop`] ends the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until all clients have left.
    Smart,
    /// Ends the sessions, rolling back their transactions, and shuts down cleanly.
    Fast,
    /// Ends at once without a clean shutdown; the next start recovers from the log.
    Immediate,
}

impl Postgres {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is not installed (the message says what to do) or does not start (the
    /// message ends with its log).
    pub fn start() -> Result<Self> {
        Self::options().start()
    }

    /// Options for a server.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// Tells whether PostgreSQL's programs can be found.
    ///
    /// They are looked for in `REFLEX_POSTGRES_BIN_DIR` if that is set, else in the newest of
    /// Debian's folders and in `PATH`.
    ///
    /// # Errors
    ///
    /// If one is missing; the message says what to do.
    pub fn find() -> Result<()> {
        ["initdb", "postgres", "pg_basebackup"].iter().try_for_each(|name| PROGRAMS.find(&[name]).map(drop))
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL of a database of this server.
    pub fn url_for(&self, database: &str) -> String {
        self.url_via(self.addr(), database)
    }

    /// The URL of a database of this server reached through `addr`, such as a proxy's.
    pub fn url_via(&self, addr: SocketAddr, database: &str) -> String {
        format!("postgres://{SUPERUSER}@{addr}/{database}")
    }

    server_methods!();

    /// The folder with the server's data.
    pub fn data_dir(&self) -> PathBuf {
        self.server.sandbox.path(DATA)
    }

    /// Stops the server and waits for its end; does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// If it does not stop within a minute.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        self.server.stop(mode.signal())
    }

    /// Asks the server to stop, and returns at once; does nothing if it is stopped.
    ///
    /// # Errors
    ///
    /// If it cannot be asked.
    pub fn ask_to_stop(&self, mode: StopMode) -> Result<()> {
        self.server.ask_to_stop(mode.signal())
    }

    /// Starts the server again with the same port and data, after a fast stop if it runs.
    ///
    /// # Errors
    ///
    /// If it does not stop or start within a minute each; the message ends with its log.
    pub fn restart(&self) -> Result<()> {
        self.server.restart(StopMode::Fast.signal())
    }

    /// Starts a hot standby that follows this server, with the same settings.
    ///
    /// Returns when the standby answers queries.
    ///
    /// # Errors
    ///
    /// If the copy of this running server cannot be made, or the standby does not start.
    pub fn standby(&self) -> Result<Self> {
        let sandbox = Sandbox::new("postgres", ACCOUNT)?;
        let mut copy = sandbox.command(&PROGRAMS.find(&["pg_basebackup"])?);
        copy.args(["--no-sync", "--no-password", "--write-recovery-conf", "--checkpoint=fast"]);
        copy.args(["--wal-method=stream", "--host=127.0.0.1", "--username", SUPERUSER]);
        copy.arg("--port").arg(self.addr().port().to_string()).arg("--pgdata").arg(sandbox.path(DATA));
        sandbox.run(copy, "copy a PostgreSQL server with pg_basebackup")?;
        let server = Server::start(self.server.program.clone(), sandbox)?;
        Ok(Self { server })
    }
}

/// What differs from the defaults when a [`Postgres`] starts.
///
/// The defaults suit tests: no fsync, 300 connections, 20 prepared transactions,
/// `wal_level` logical, UTF-8, UTC.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    args: Vec<String>,
    durable: bool,
    parent: Option<PathBuf>,
}

impl PostgresOptions {
    /// Sets a parameter in `postgresql.conf`, over the default of this crate.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds an argument to the server's command line.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Leaves durability, WAL level and buffers as a server has them by default: each commit is flushed to disk.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Keeps the server's files in a folder of its own inside this one. Default: inside the folder for temporary files.
    pub fn parent_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.parent = Some(folder.into());
        self
    }

    /// Creates the data folder and starts the server.
    ///
    /// # Errors
    ///
    /// If PostgreSQL is not installed (the message says what to do) or does not start (the
    /// message ends with its log).
    pub fn start(self) -> Result<Postgres> {
        let program = PostgresProgram { path: PROGRAMS.find(&["postgres"])?, args: self.args };
        let sandbox = Sandbox::new_in(&self.parent.unwrap_or_else(env::temp_dir), "postgres", ACCOUNT)?;
        let mut init = sandbox.command(&PROGRAMS.find(&["initdb"])?);
        init.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username", SUPERUSER]);
        init.arg("--pgdata").arg(sandbox.path(DATA));
        sandbox.run(init, "create a PostgreSQL data folder with initdb")?;
        let light = if self.durable { &[][..] } else { &LIGHT };
        configure(&sandbox.path(DATA), light, &self.settings)?;
        Ok(Postgres { server: Server::start(program, sandbox)? })
    }
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

#[derive(Debug, Clone)]
struct PostgresProgram {
    path: PathBuf,
    args: Vec<String>,
}

impl Program for PostgresProgram {
    const NAME: &'static str = "PostgreSQL";

    fn command(&self, sandbox: &Sandbox, port: u16) -> Command {
        let mut command = sandbox.command(&self.path);
        command.arg("-D").arg(sandbox.path(DATA)).arg("-p").arg(port.to_string());
        command.arg("-k").arg(sandbox.folder()).args(&self.args);
        command
    }

    fn is_ready(&self, sandbox: &Sandbox, pid: u32, _log: &str) -> bool {
        let Ok(status) = fs::read_to_string(sandbox.path(DATA).join("postmaster.pid")) else {
            return false;
        };
        let lines: Vec<&str> = status.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn after_kill(&self, sandbox: &Sandbox) -> Result<()> {
        remove_shared_memory(&sandbox.path(DATA).join("postmaster.pid"))
    }
}

fn configure(data: &Path, light: &[(&str, &str)], settings: &[(String, String)]) -> Result<()> {
    let path = data.join("postgresql.conf");
    let defaults = SETTINGS.iter().chain(light).map(|(name, value)| line(name, value));
    let lines: String = defaults.chain(settings.iter().map(|(name, value)| line(name, value))).collect();
    fs::read_to_string(&path)
        .and_then(|conf| fs::write(&path, conf + "\n" + &lines))
        .map_err(|e| Error::io(format!("add settings to {}", path.display()), e))
}

fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

/// Removes the small System V segment by which a server recognises another one on its data.
/// A killed server leaves it, and the system keeps it until it is removed.
fn remove_shared_memory(pid_file: &Path) -> Result<()> {
    let Ok(status) = fs::read_to_string(pid_file) else {
        return Ok(());
    };
    let Some(id) = status.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else {
        return Ok(());
    };
    // It fails if the segment is gone already, which is as good.
    let removed = Command::new("ipcrm").args(["-m", id]).output();
    removed.map(drop).map_err(|e| Error::io(format!("remove shared memory segment {id} with ipcrm"), e))
}
