//! The tasks, run with a stand-in for cargo, leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
const URLS: [&str; 3] = ["REFLEX_TEST_POSTGRES_URL", "REFLEX_TEST_MARIADB_URL", "REFLEX_TEST_REDIS_URL"];
const NEVER_ENDS: &str = r#"echo $$ > "$PLACE/cargo.pid"; exec sleep 1000"#;

#[test]
#[ignore = "needs Postgres, MariaDB and Redis: cargo xtask test"]
fn servers_run_until_a_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = Place::new("exit 1");
        let mut task = place.start("servers");
        poll("the servers' URLs", || {
            let said = place.read("stdout");
            URLS.iter().all(|url| said.contains(&format!("export {url}="))) && said.ends_with('\n')
        });
        assert_eq!(place.folders().len(), URLS.len());
        kill_process(Pid::from_child(&task), signal).unwrap();
        assert!(end(&mut task).success());
        assert_eq!(place.folders(), Vec::<PathBuf>::new());
    }
}

#[test]
#[ignore = "needs Postgres, MariaDB and Redis: cargo xtask test"]
fn test_stops_on_a_signal_with_what_it_runs() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new(NEVER_ENDS);
        let mut task = place.start("test");
        poll("cargo to start", || place.read("cargo.pid").ends_with('\n'));
        kill_process(Pid::from_child(&task), signal).unwrap();
        assert!(!end(&mut task).success());
        assert!(!Path::new("/proc").join(place.read("cargo.pid").trim()).exists());
        assert_eq!(place.folders(), Vec::<PathBuf>::new());
    }
}

#[test]
#[ignore = "needs Postgres, MariaDB and Redis: cargo xtask test"]
fn test_stops_its_servers_when_tests_fail() {
    let place = Place::new(r#"env > "$PLACE/env"; exit 7"#);
    assert!(!end(&mut place.start("test")).success());
    assert!(URLS.iter().all(|url| place.read("env").contains(url)));
    assert_eq!(place.folders(), Vec::<PathBuf>::new());
}

#[test]
fn test_uses_servers_from_the_environment() {
    let place = Place::new(r#"env > "$PLACE/env"; ls "$TMPDIR" > "$PLACE/servers"; echo "$*" >> "$PLACE/args""#);
    let mut task = place.command("test");
    task.arg("a_filter").envs(URLS.map(|url| (url, "from-outside")));
    assert!(end(&mut task.spawn().unwrap()).success());
    assert!(URLS.iter().all(|url| place.read("env").contains(&format!("{url}=from-outside"))));
    assert_eq!(place.read("servers"), "");
    let args = place.read("args");
    let (tests, docs) = args.split_once('\n').unwrap();
    assert!(tests.ends_with("-- --include-ignored a_filter"), "{tests}");
    assert!(docs.ends_with("--doc -- a_filter\n"), "{docs}");
}

#[test]
fn chaos_divides_the_time_and_prints_a_table() {
    let place = Place::new(
        r#"echo "$*" >> "$PLACE/args"
case "$*" in *--list*) printf 'chaos::one: test\nfaults::two: test\n\n2 tests, 0 benchmarks\n'; exit;; esac
echo "$REFLEX_CHAOS_SECONDS" >> "$PLACE/seconds"
echo '{"fault":"x","database":"SQLite","faults":1,"events":2,"runs":3,"failures":4,"repeats":5,
"lost":0,"phantoms":0,"disorder":0,"seconds":6}' | tr -d '\n' >> "$REFLEX_CHAOS_REPORT"
echo >> "$REFLEX_CHAOS_REPORT"; case "$*" in *two) exit 1;; esac"#,
    );
    let mut task = place.command("chaos");
    task.args(["--minutes", "3"]).envs(URLS.map(|url| (url, "from-outside")));
    assert!(!end(&mut task.spawn().unwrap()).success());
    let args = place.read("args");
    assert!(args.ends_with("--include-ignored --exact faults::two\n"), "{args}");
    let seconds: Vec<u64> = place.read("seconds").lines().map(|line| line.parse().unwrap()).collect();
    assert!(seconds.len() == 2 && seconds[0] < 90 && seconds[0] > 30 && seconds[1] > 60, "{seconds:?}");
    let said = place.read("stdout");
    assert_eq!(said.matches("\nSQLite, x: 1 faults, 2 events").count(), 1, "{said}");
    assert_eq!(said.matches("| x | SQLite | 1 | 2 | 3 | 4 | 5 | 0 | 0 | 0 | 6 |\n").count(), 2, "{said}");
    assert!(place.read("stderr").contains("1 of 2 chaos tests failed: faults::two"), "{}", place.read("stderr"));
}

#[test]
fn chaos_stops_on_a_signal_with_what_it_asks() {
    let place = Place::new(NEVER_ENDS);
    let mut task = place.command("chaos").envs(URLS.map(|url| (url, "from-outside"))).spawn().unwrap();
    poll("cargo to start", || place.read("cargo.pid").ends_with('\n'));
    kill_process(Pid::from_child(&task), Signal::TERM).unwrap();
    assert!(!end(&mut task).success());
    assert!(!Path::new("/proc").join(place.read("cargo.pid").trim()).exists());
}

#[test]
fn chaos_shows_on_a_signal_what_was_done() {
    let place = Place::new(
        r#"case "$*" in *--list*) printf 'chaos::one: test\nchaos::two: test\nchaos::three: test\n'; exit;;
*two) echo $$ > "$PLACE/cargo.pid"; exec sleep 1000;; esac
echo "$*" >> "$PLACE/args"
echo '{"fault":"x","database":"SQLite","faults":1,"events":2,"runs":3,"failures":4,"repeats":5,
"lost":0,"phantoms":0,"disorder":0,"seconds":6}' | tr -d '\n' >> "$REFLEX_CHAOS_REPORT""#,
    );
    let mut task = place.command("chaos").envs(URLS.map(|url| (url, "from-outside"))).spawn().unwrap();
    poll("the second test to start", || place.read("cargo.pid").ends_with('\n'));
    kill_process(Pid::from_child(&task), Signal::INT).unwrap();
    assert!(!end(&mut task).success());
    let said = place.read("stdout");
    assert!(said.ends_with("| x | SQLite | 1 | 2 | 3 | 4 | 5 | 0 | 0 | 0 | 6 |\n\n"), "{said}");
    assert_eq!(place.read("args").lines().count(), 1);
    assert!(place.read("stderr").ends_with("error: stopped by a signal\n"), "{}", place.read("stderr"));
}

#[test]
fn chaos_needs_some_time() {
    let place = Place::new(r#"echo "$*" >> "$PLACE/args""#);
    assert!(!end(&mut place.command("chaos").args(["--minutes", "0"]).spawn().unwrap()).success());
    assert!(place.read("stderr").contains("from 5 minutes on"), "{}", place.read("stderr"));
    assert_eq!(place.read("args"), "");
}

#[test]
#[ignore = "needs Postgres and MariaDB: cargo xtask test"]
fn bench_runs_with_servers_of_its_own() {
    let place = Place::new(r#"env > "$PLACE/env"; echo "$*" >> "$PLACE/args""#);
    let mut task = place.command("bench");
    assert!(end(&mut task.args(["--quick", "--filter", "read/"]).spawn().unwrap()).success());
    let args = place.read("args");
    let [build, list, run] = args.lines().collect::<Vec<_>>()[..] else { panic!("{args}") };
    assert_eq!(build, "build --release --package=reflex-bench");
    assert!(list.ends_with(" --package=reflex-bench -- --quick --filter=read/ --list"), "{list}");
    assert!(run.ends_with(" --package=reflex-bench -- --quick --filter=read/"), "{run}");
    let urls = ["REFLEX_BENCH_POSTGRES_URL=postgres:", "REFLEX_BENCH_MARIADB_URL=mysql:"];
    assert!(urls.iter().all(|url| place.read("env").contains(url)));
    assert_eq!(place.folders(), Vec::<PathBuf>::new());
}

#[test]
#[ignore = "needs Postgres and MariaDB: cargo xtask test"]
fn bench_starts_no_server_for_what_cannot_be_measured() {
    let place = Place::new(r#"echo "$*" >> "$PLACE/args"; case "$*" in *--list*) exit 1;; esac"#);
    let mut task = place.command("bench");
    assert!(!end(&mut task.args(["--filter", "no/such/row", "--peers"]).spawn().unwrap()).success());
    let args = place.read("args");
    assert!(args.lines().count() == 2 && args.ends_with(" --filter=no/such/row --list\n"), "{args}");
}

#[test]
fn bench_lists_rows_without_a_server() {
    let place = Place::new(r#"echo "$*" >> "$PLACE/args"; echo a/row"#);
    assert!(end(&mut place.command("bench").arg("--list").spawn().unwrap()).success());
    assert!(place.read("args").ends_with(" --package=reflex-bench -- --list\n"), "{}", place.read("args"));
    assert_eq!(place.read("stdout"), "a/row\n");
}

#[test]
fn ci_runs_each_step_in_order() {
    let place = Place::new(
        r#"echo "$*" >> "$PLACE/args"
[ "$1" != metadata ] || echo '{"packages": [{"name": "a", "publish": null, "features": {"default": [], "x": []}}]}'"#,
    );
    let mut task = place.command("ci");
    task.env("CI", "true").envs(URLS.map(|url| (url, "from-outside")));
    assert!(end(&mut task.spawn().unwrap()).success());
    let ran = [
        "metadata --no-deps --format-version=1",
        "fmt --all --check",
        "clippy --workspace --all-features --all-targets -- --deny warnings",
        "clippy --lib --all-features --package=a -- --deny warnings",
        "doc --workspace --all-features --no-deps",
        "test --workspace --all-features --no-fail-fast --lib --bins --tests --examples -- --include-ignored",
        "test --workspace --all-features --no-fail-fast --doc --",
        "check --quiet --no-default-features --package a --features=x",
        "check --quiet --no-default-features --package a",
        "check --manifest-path fuzz/Cargo.toml --locked",
    ];
    let args = place.read("args");
    let args: Vec<_> = args.lines().collect();
    let (package, before) = args.split_last().unwrap();
    assert_eq!(before, ran);
    let own_folder = format!("package --target-dir {}/", place.folder.path().join("tmp").display());
    assert!(package.starts_with(&own_folder) && package.ends_with(" --package=a"), "{package}");
    assert_eq!(place.folders(), Vec::<PathBuf>::new());
}

#[test]
fn ci_stops_at_the_first_step_that_fails() {
    let place = Place::new(
        r#"case "$1" in metadata) echo '{"packages": []}';; clippy) exit 1;; esac; echo "$1" >> "$PLACE/args""#,
    );
    assert!(!end(&mut place.start("ci")).success());
    assert_eq!(place.read("args"), "metadata\nfmt\n");
    assert!(place.read("stderr").contains("step `lints` failed"), "{}", place.read("stderr"));
}

/// A folder for the servers of one task, for its output, and for a program in place of cargo.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(cargo: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), executable.clone()).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        fs::write(folder.path().join("cargo"), format!("#!/bin/sh\n{cargo}\n")).unwrap();
        fs::set_permissions(folder.path().join("cargo"), executable).unwrap();
        Self { folder }
    }

    fn start(&self, task: &str) -> Child {
        self.command(task).spawn().unwrap()
    }

    fn command(&self, task: &str) -> Command {
        let file = |name| fs::File::create(self.folder.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for url in URLS {
            command.env_remove(url);
        }
        command.arg(task).env("CARGO", self.folder.path().join("cargo"));
        command.env("PLACE", self.folder.path()).env("TMPDIR", self.folder.path().join("tmp"));
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        command
    }

    /// The servers' folders.
    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

fn end(task: &mut Child) -> ExitStatus {
    let mut status = None;
    poll("the task to end", || {
        status = task.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a plain test without a runtime polls with a deadline")]
fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
