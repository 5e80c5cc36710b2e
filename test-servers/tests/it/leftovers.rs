//! A process that starts a server and is killed leaves no process and no folder.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Below the minute after which PostgreSQL notices by itself that its folder is gone.
const LIMIT: Duration = Duration::from_secs(40);

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn postgres_leaves_nothing_whenever_its_owner_is_killed() {
    for file in [".", "pids", "data", "data/base/5", "server.log", "data/postmaster.pid"] {
        check("postgres", &Moment::File(file));
    }
    check("postgres", &Moment::Ready);
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn mariadb_leaves_nothing_whenever_its_owner_is_killed() {
    for file in [".", "pids", "data", "data/ibdata1", "init.sql", "pid"] {
        check("mariadb", &Moment::File(file));
    }
    check("mariadb", &Moment::Ready);
}

#[test]
#[ignore = "needs Redis: cargo xtask test"]
fn redis_leaves_nothing_whenever_its_owner_is_killed() {
    for file in [".", "pids", "redis.conf", "server.log", "appendonlydir"] {
        check("redis", &Moment::File(file));
    }
    check("redis", &Moment::Ready);
}

/// When the owner is killed.
#[derive(Debug)]
enum Moment {
    /// This file exists in the server's folder.
    File(&'static str),
    /// The server has been started.
    Ready,
}

#[track_caller]
fn check(server: &str, moment: &Moment) {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folders = place.path().join("tmp");
    fs::create_dir(&folders).unwrap();
    let output = place.path().join("output");
    let mut owner = start(server, &folders, &output);
    poll(&format!("{server}: {moment:?}"), || {
        assert_eq!(owner.try_wait().unwrap(), None, "{server} did not start");
        match moment {
            Moment::File(file) => entries(&folders).iter().any(|folder| folder.join(file).exists()),
            Moment::Ready => fs::read_to_string(&output).unwrap().ends_with('\n'),
        }
    });
    owner.kill().unwrap();
    owner.wait().unwrap();
    poll(&format!("{server}'s folder to go after {moment:?}"), || entries(&folders).is_empty());
    poll(&format!("{server} to end after {moment:?}"), || processes_in(&folders) == 0);
}

fn start(server: &str, folders: &Path, output: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_test-server"))
        .arg(server)
        .env("TMPDIR", folders)
        .stdin(Stdio::piped())
        .stdout(File::create(output).unwrap())
        .spawn()
        .unwrap()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Processes that have the folder in their command line or work inside it.
fn processes_in(folder: &Path) -> usize {
    let name = folder.to_str().unwrap();
    let is_inside = |process: &Path| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let works_in = fs::read_link(process.join("cwd")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(name) || works_in.starts_with(folder)
    };
    entries(Path::new("/proc")).iter().filter(|process| is_inside(process)).count()
}

#[expect(clippy::disallowed_methods, reason = "a plain test without a runtime polls with a deadline")]
fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
