use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::error::Result;
use crate::programs::{Programs, system_folders};
use crate::sandbox::Sandbox;
use crate::server::{Program, Server, server_methods};

const PROGRAMS: Programs =
    Programs { variable: "REFLEX_MARIADB_BIN_DIR", package: "mariadb-server", usual: system_folders };
const SERVER: [&str; 2] = ["mariadbd", "mysqld"];
const INSTALL: [&str; 2] = ["mariadb-install-db", "mysql_install_db"];
const ACCOUNT: &str = "mysql";
const DATA: &str = "data";
const INIT: &str = "init.sql";

/// Run at each start, so each statement can be repeated.
const INIT_SQL: &str = "\
create user if not exists 'root'@'127.0.0.1';
grant all privileges on *.* to 'root'@'127.0.0.1' with grant option;
create database if not exists test;
";

/// Speed over durability, and small enough for several servers on one machine.
const LIGHT: [(&str, &str); 5] = [
    ("innodb-flush-log-at-trx-commit", "2"),
    ("innodb-buffer-pool-size", "64M"),
    ("innodb-log-file-size", "32M"),
    ("key-buffer-size", "1M"),
    ("aria-pagecache-buffer-size", "8M"),
];
/// Room for every kind of test.
const SETTINGS: [(&str, &str); 4] = [
    ("bind-address", "127.0.0.1"),
    ("max-connections", "300"),
    ("max-connect-errors", "1000000"),
    ("character-set-server", "utf8mb4"),
];
const METADATA_LOCK_INFO: &str = "metadata_lock_info";

/// A private MariaDB server on a loopback port, with its data in a temporary folder.
///
/// The user `root` has all privileges over TCP and needs no password. The server stops and the
/// folder goes when this is dropped, and also when the process that started it ends in any
/// other way.
///
/// All methods that start or stop the server block for up to some seconds; asynchronous code
/// calls them through `tokio::task::spawn_blocking`, for which they take `&self`.
///
/// # Examples
///
/// ```no_run
/// let server = test_servers::MariaDb::start()?;
/// println!("{}", server.url());
/// # Ok::<(), test_servers::Error>(())
/// ```
#[derive(Debug)]
pub struct MariaDb {
    server: Server<MariaDbProgram>,
}

impl MariaDb {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// If MariaDB is not installed (the message says what to do) or does not start (the
    /// message ends with its log).
    pub fn start() -> Result<Self> {
        Self::options().start()
    }

    /// Options for a server.
    pub fn options() -> MariaDbOptions {
        MariaDbOptions::default()
    }

    /// Tells whether MariaDB's programs can be found.
    ///
    /// They are looked for in the folders of `REFLEX_MARIADB_BIN_DIR` (separated by colons) if
    /// that is set, else in the system's folders and in `PATH`.
    ///
    /// # Errors
    ///
    /// If one is missing; the message says what to do.
    pub fn find() -> Result<()> {
        [SERVER, INSTALL].iter().try_for_each(|names| PROGRAMS.find(names).map(drop))
    }

    /// The URL of the database `test`.
    pub fn url(&self) -> String {
        self.url_for("test")
    }

    /// The URL of a database of this server.
    pub fn url_for(&self, database: &str) -> String {
        self.url_via(self.addr(), database)
    }

    /// The URL of a database of this server reached through `addr`, such as a proxy's.
    pub fn url_via(&self, addr: SocketAddr, database: &str) -> String {
        format!("mysql://root@{addr}/{database}")
    }

    server_methods!();

    /// The folder with the server's data.
    pub fn data_dir(&self) -> PathBuf {
        self.server.sandbox.path(DATA)
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

/// What differs from the defaults when a [`MariaDb`] starts.
///
/// The defaults suit tests: the log is not flushed to disk at each commit, 300 connections,
/// small buffers, the plugin `metadata_lock_info` loaded.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct MariaDbOptions {
    settings: Vec<(String, String)>,
    args: Vec<String>,
    left_out: bool,
    durable: bool,
    parent: Option<PathBuf>,
}

impl MariaDbOptions {
    /// Sets a server variable, over the default of this crate.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Adds an argument to the server's command line.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Leaves out the plugin `metadata_lock_info`, as a server is by default.
    pub fn without_metadata_lock_info(mut self) -> Self {
        self.left_out = true;
        self
    }

    /// Leaves durability and buffers as a server has them by default: each commit is flushed to disk.
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
    /// If MariaDB is not installed (the message says what to do) or does not start (the
    /// message ends with its log).
    pub fn start(self) -> Result<MariaDb> {
        let path = PROGRAMS.find(&SERVER)?;
        let sandbox = Sandbox::new_in(self.parent.as_deref().unwrap_or(&env::temp_dir()), "mariadb", ACCOUNT)?;
        let program = MariaDbProgram { path, args: self.command_line() };
        let mut install = sandbox.command(&PROGRAMS.find(&INSTALL)?);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(option("datadir", &sandbox, DATA));
        sandbox.run(install, "create a MariaDB data folder with mariadb-install-db")?;
        sandbox.write(INIT, INIT_SQL)?;
        Ok(MariaDb { server: Server::start(program, sandbox)? })
    }

    fn command_line(self) -> Vec<String> {
        let plugin = (!self.left_out).then(|| format!("--plugin-load-add={METADATA_LOCK_INFO}"));
        let light = if self.durable { &[][..] } else { &LIGHT };
        let defaults = SETTINGS.iter().chain(light).map(|(name, value)| format!("--{name}={value}"));
        let settings = self.settings.iter().map(|(name, value)| format!("--{name}={value}"));
        defaults.chain(plugin).chain(settings).chain(self.args).collect()
    }
}

#[derive(Debug)]
struct MariaDbProgram {
    path: PathBuf,
    args: Vec<String>,
}

impl Program for MariaDbProgram {
    const NAME: &'static str = "MariaDB";

    fn command(&self, sandbox: &Sandbox, port: u16) -> Command {
        let mut command = sandbox.command(&self.path);
        command.args(["--no-defaults", "--skip-name-resolve"]).arg(format!("--port={port}"));
        command.arg(option("datadir", sandbox, DATA)).arg(option("init-file", sandbox, INIT));
        command.arg(option("socket", sandbox, "socket")).arg(option("pid-file", sandbox, "pid"));
        command.arg(option("tmpdir", sandbox, ".")).args(&self.args);
        command
    }

    fn is_ready(&self, _sandbox: &Sandbox, _pid: u32, log: &str) -> bool {
        log.contains("ready for connections")
    }

    fn after_kill(&self, _sandbox: &Sandbox) -> Result<()> {
        Ok(())
    }
}

fn option(name: &str, sandbox: &Sandbox, file: &str) -> String {
    format!("--{name}={}", sandbox.path(file).display())
}
