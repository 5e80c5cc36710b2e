//! `reflex demo --serve`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{ChildStderr, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    demo::{check_authors, random_repository},
    reflex::{Running, fail, until},
    repository::Repository,
};

/// A demo that serves, at an address of its own.
struct Serving {
    running: Running,
    address: String,
    _stderr: BufReader<ChildStderr>,
}

impl Serving {
    fn start(repository: &Repository) -> Self {
        let mut demo = repository.demo(&["--json", "--serve", "127.0.0.1:0"]);
        let mut running = Running::start(demo.stderr(Stdio::piped()));
        let mut stderr = BufReader::new(running.child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { running, address, _stderr: stderr }
    }

    /// The status and the body.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn health(&self) -> (u16, Value) {
        let (status, body) = self.get("/health");
        (status, serde_json::from_str(&body).unwrap())
    }

    fn until_healthy(&self, healthy: bool) -> Value {
        let status = if healthy { 200 } else { 503 };
        until("the health changes", || Some(self.health()).filter(|health| health.0 == status)).1
    }

    /// How many events a consumer was handed.
    fn handed(&self, consumer: &str) -> u64 {
        let metric = format!("reflex_consumer_latency_seconds_count{{consumer_name=\"{consumer}\"}} ");
        let (status, metrics) = self.get("/metrics");
        assert_eq!(status, 200);
        metrics.lines().find_map(|line| line.strip_prefix(&metric)).map_or(0, |count| count.parse().unwrap())
    }
}

fn consumer<'a>(health: &'a Value, name: &str) -> &'a Value {
    let consumers = health["consumers"].as_array().unwrap();
    consumers.iter().find(|consumer| consumer["name"] == name).unwrap()
}

#[test]
fn it_imports_what_is_committed_and_tells_how_it_is() {
    let repository = random_repository(20, &[]);
    let commits = repository.count(&[]);
    let mut serving = Serving::start(&repository);
    let report: Value = serde_json::from_str(&serving.running.line()).unwrap();
    assert_eq!(report["imported"], commits);
    let health = serving.until_healthy(true);
    assert_eq!(consumer(&health, "merges")["healthy"], true, "{health}");
    repository.commit();
    until("the commit is consumed", || (serving.handed("author-totals") == commits + 1).then_some(()));

    // Without HEAD git cannot read the repository.
    let head = repository.path.join(".git/HEAD");
    std::fs::rename(&head, repository.folder().join("HEAD")).unwrap();
    let health = serving.until_healthy(false);
    assert!(health["import"]["last_error"]["message"].as_str().unwrap().contains("HEAD"), "{health}");
    std::fs::rename(repository.folder().join("HEAD"), &head).unwrap();
    serving.until_healthy(true);

    serving.running.signal(Signal::TERM);
    assert_eq!(serving.running.exit_code(), Some(0));
    let report = repository.report();
    assert_eq!((&report["imported"], &report["days"]["commits"]), (&0.into(), &(commits + 1).into()));
    check_authors(&report, &repository);
}

#[test]
fn a_consumer_that_fails_is_unhealthy_and_started_again() {
    let repository = random_repository(20, &[]);
    let commits = repository.count(&[]);
    let mut serving = Serving::start(&repository);
    serving.running.line();
    serving.until_healthy(true);
    let data = repository.path.join(".git/reflex-demo.sqlite");
    execute(&data, "alter table commit_days rename to days_elsewhere");
    repository.commit();
    let health = serving.until_healthy(false);
    let failed = consumer(&health, "commits-per-day");
    assert_eq!(failed["state"], "failing", "{health}");
    assert!(failed["last_error"]["message"].as_str().unwrap().contains("no such table: commit_days"), "{health}");
    assert_eq!(consumer(&health, "author-totals")["healthy"], true, "{health}");
    execute(&data, "alter table days_elsewhere rename to commit_days");
    until("the commit is counted", || {
        let (_, health) = serving.health();
        (health["healthy"] == true && serving.handed("commits-per-day") >= commits + 2).then_some(())
    });
    serving.running.signal(Signal::INT);
    assert_eq!(serving.running.exit_code(), Some(0));
    let report = repository.report();
    assert_eq!(report["days"]["commits"], repository.count(&[]));
}

fn execute(data: &std::path::Path, sql: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", data.display())).await.unwrap();
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        pool.close().await;
    });
}

#[test]
fn a_repository_without_commits_is_waited_for() {
    let repository = Repository::empty(&[]);
    let mut serving = Serving::start(&repository);
    serving.running.line();
    repository.commit();
    until("the first commit is consumed", || (serving.handed("author-totals") == 1).then_some(()));
}

#[test]
fn an_address_that_is_taken_is_told_before_anything_happens() {
    let repository = random_repository(5, &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = fail(&mut repository.demo(&["--serve", &address]), 1);
    assert!(message.contains(&address) && message.contains("in use") && message.contains("--serve"), "{message}");
    assert!(!repository.path.join(".git/reflex-demo.sqlite").exists());
    let message = fail(&mut repository.demo(&["--serve", "nonsense"]), 2);
    assert!(message.contains("listen on `nonsense`"), "{message}");
}
