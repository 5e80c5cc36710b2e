//! What is wrong is told with what would be right.

use std::process::Stdio;

use crate::reflex::{TestDatabase, fail, reflex, succeed};

#[track_caller]
fn check(arguments: &[&str], code: i32, parts: &[&str]) {
    let message = fail(&mut reflex(arguments), code);
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

#[test]
fn a_database_that_is_not_there() {
    check(&["lag"], 2, &["--database-url <URL>"]);
    check(&["tail", "--database-url", "oracle://x"], 2, &["`oracle:`", "postgres://, mysql://, mariadb:// or sqlite:"]);
    check(&["tail", "--database-url", "sqlite:/no-such.db"], 1, &["/no-such.db does not exist", "reflex migrate"]);
    check(&["migrate", "--status", "--database-url", "sqlite:/no/such.db"], 1, &["the directory /no does not exist"]);
    check(&["migrate", "--database-url", "sqlite:/no/such.db"], 1, &["the directory /no does not exist"]);
    check(&["migrate", "--database-url", "sqlite::memory:"], 2, &["names no file"]);
    check(&["tail", "--database-url", "postgres://u:secret@127.0.0.1:1/x"], 1, &["PostgreSQL at 127.0.0.1:1"]);
    check(&["tail", "--database-url", "mariadb://u:secret@127.0.0.1:1/x"], 1, &["MariaDB at 127.0.0.1:1"]);
}

#[test]
fn a_table_that_is_not_there_or_no_table() {
    let database = TestDatabase::new();
    for command in [["tail", "--table", "orders"], ["cursors", "list", "--table=orders"], ["lag", "--table", "orders"]]
    {
        let message = fail(&mut database.reflex(&command), 1);
        assert!(message.contains("table `orders` does not exist") && message.contains("reflex schema"), "{message}");
    }
    let message = fail(&mut database.reflex(&["tail", "--table", "events; drop table events"]), 2);
    assert!(message.contains("is no table or column name"), "{message}");
    check(&["schema", "--dialect", "sqlite", "--events", "a b"], 2, &["`a b` is no table or column name"]);
    check(&["schema", "--dialect", "oracle"], 2, &["postgres, mysql, sqlite"]);
}

#[test]
fn a_file_that_cannot_be_written() {
    let database = TestDatabase::new();
    let url = format!("{}?mode=ro", database.url);
    let insert = ["insert", "--type=1", "--foreign-id=a", "--database-url", &url];
    check(&insert, 1, &["readonly", "hint: SQLite in WAL mode needs a writable folder"]);
}

#[test]
fn an_event_that_cannot_be() {
    let database = TestDatabase::new();
    let insert =
        |arguments: &[&str], code| fail(database.reflex(&["insert", "--foreign-id", "0"]).args(arguments), code);
    assert!(insert(&["--type", "0"], 2).contains("placeholder"));
    assert!(insert(&["--type", "x"], 2).contains("--type <N>"));
    assert!(insert(&["--type", "1", "--timestamp", "noon"], 2).contains("2026-01-31T12:00:00Z"));
    assert!(insert(&["--type", "1", "--metadata-file", "/no/such"], 1).contains("--metadata-file /no/such"));
    assert!(insert(&[], 2).contains("--type <N>"));
    assert!(database.events().is_empty());
}

#[test]
fn an_output_that_takes_nothing() {
    let database = TestDatabase::new();
    database.insert("a");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let message = fail(database.reflex(&["tail", "--to-head"]).stdout(full).stderr(Stdio::piped()), 1);
    assert!(message.contains("write to stdout: No space left"), "{message}");
}

#[test]
fn every_command_explains_itself() {
    let help = succeed(&mut reflex(&["--help"]));
    for command in ["demo", "migrate", "schema", "import", "insert", "tail", "cursors", "lag"] {
        assert!(help.contains(command), "{help}");
        let help = succeed(&mut reflex(&[command, "--help"]));
        assert!(help.contains("Example") && help.contains(&format!("reflex {command}")), "{help}");
    }
    check(&[], 2, &["Usage: reflex <COMMAND>"]);
}
