//! What is wrong is told with what would be right.

use std::process::Stdio;

use crate::reflex::{TestDatabase, fail, reflex, stderr, succeed, text, with_input};

#[track_caller]
fn check(arguments: &[&str], code: i32, parts: &[&str]) {
    let message = fail(&mut reflex(arguments), code);
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

#[test]
fn a_database_that_is_not_there() {
    check(&["lag"], 2, &["--database-url <URL>", "tip: the variable DATABASE_URL"]);
    check(&["tail", "--database-url", "oracle://x"], 2, &["`oracle:`", "postgres://, mysql://, mariadb:// or sqlite:"]);
    check(
        &["tail", "--database-url", "sqlite:/no-such.db"],
        1,
        &["SQLite file /no-such.db: the file does not exist", "reflex migrate"],
    );
    check(&["migrate", "--status", "--database-url", "sqlite:/no/such.db"], 1, &["the directory /no does not exist"]);
    check(&["migrate", "--database-url", "sqlite:/no/such.db"], 1, &["the directory /no does not exist"]);
    check(&["migrate", "--database-url", "sqlite::memory:"], 2, &["names no file"]);
    check(
        &["tail", "--database-url", "postgres://u:secret@127.0.0.1:1/x"],
        1,
        &["PostgreSQL at 127.0.0.1:1, database `x`: connect"],
    );
    check(
        &["tail", "--database-url", "mariadb://u:secret@127.0.0.1:1/x"],
        1,
        &["MariaDB at 127.0.0.1:1, database `x`: connect"],
    );
}

#[test]
fn a_table_that_is_not_there_or_no_table() {
    let database = TestDatabase::new();
    for command in [["tail", "--table", "orders"], ["cursors", "list", "--table=orders"], ["lag", "--table", "orders"]]
    {
        let message = fail(&mut database.reflex(&command), 1);
        assert!(message.contains("test.db: table `orders` does not exist"), "{message}");
        assert!(message.starts_with("error: SQLite file /") && message.contains("reflex schema"), "{message}");
    }
    let message = fail(&mut database.reflex(&["tail", "--table", "cursors"]), 1);
    assert!(message.contains("hint: this command takes columns of the default names only"), "{message}");
    let message = fail(&mut database.reflex(&["tail", "--table", "events; drop table events"]), 2);
    assert!(message.contains("is no table or column name"), "{message}");
    check(&["schema", "--dialect", "sqlite", "--events", "a b"], 2, &["`a b` is no table or column name"]);
    check(&["schema", "--dialect", "oracle"], 2, &["postgres, mysql, sqlite"]);
}

#[test]
fn tables_of_the_same_name() {
    for names in [
        ["--events=a", "--cursors=a"],
        ["--events=consumer_errors", "--cursors=a"],
        ["--events=a", "--errors=a"],
        ["--events=a_letters", "--errors=a"],
    ] {
        for dialect in ["postgres", "mysql", "sqlite"] {
            let output = reflex(&["schema", "--dialect", dialect]).args(names).output().unwrap();
            let message = stderr(&output);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{names:?}: {message}");
            assert!(message.contains("two tables would have the name"), "{message}");
        }
    }
    check(&["schema", "--dialect=sqlite", "--events=a", "--cursors=A"], 2, &["two tables would have the name"]);
    succeed(&mut reflex(&["schema", "--dialect=postgres", "--events=a", "--cursors=A"]));
}

#[test]
fn a_file_that_is_no_database() {
    let database = TestDatabase::new();
    let file = database.file("notes.db", "These are notes, and no database at all. ".repeat(100));
    let url = format!("sqlite:{}", text(&file));
    check(&["tail", "--database-url", &url], 1, &["error: SQLite file ", "notes.db: ", "file is not a database"]);
    check(&["cursors", "list", "--database-url", "sqlite:/tmp"], 1, &["SQLite file /tmp: ", "hint: it is a directory"]);
    let message = fail(&mut database.reflex(&["cursors", "get", "nobody"]), 1);
    assert!(message.contains("test.db: consumer `nobody` has no cursor"), "{message}");
}

#[test]
fn what_a_terminal_would_obey() {
    let database = TestDatabase::new();
    let red = "\u{1b}[31mred";
    let set = succeed(&mut database.reflex(&["cursors", "set", red, "1"]));
    let delete = succeed(&mut database.reflex(&["cursors", "delete", red]));
    let absent = fail(&mut database.reflex(&["cursors", "delete", red]), 1);
    let table = fail(&mut database.reflex(&["tail", "--table", red]), 2);
    let field = with_input(&mut database.reflex(&["import", "-"]), format!("{{\"{red}\":1}}").as_bytes());
    let escaped = with_input(&mut database.reflex(&["import", "-"]), b"{\"\\u001b[31mred\":1}");
    for said in [set, delete, absent, table, stderr(&field), stderr(&escaped)] {
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
    assert!(stderr(&escaped).contains("unknown field `\\u{1b}[31mred`"), "{}", stderr(&escaped));
}

#[test]
fn a_file_that_cannot_be_written() {
    let database = TestDatabase::new();
    let url = format!("{}?mode=ro", database.url);
    let insert = ["insert", "--type=1", "--foreign-id=a", "--database-url", &url];
    check(&insert, 1, &["readonly", "test.db: ", "hint: the file and its folder must be writable"]);
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
