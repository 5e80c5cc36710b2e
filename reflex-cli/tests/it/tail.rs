//! `reflex migrate`, `schema`, `insert` and `tail`.

use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::reflex::{Running, TestDatabase, objects, reflex, succeed, text};

#[test]
fn events_are_printed_in_one_form_or_the_other() {
    let database = TestDatabase::new();
    let insert = |arguments: &[&str]| succeed(database.reflex(&["insert"]).args(arguments));
    let bytes = database.file("bytes", [0xff, 0]);
    insert(&["--type=-1", "--foreign-id=a", "--timestamp=2026-01-31T12:00:00+01:00", "--metadata={\"x\": 1}"]);
    insert(&["--type=2", "--foreign-id=b\n", "--metadata=text\u{1b}"]);
    assert_eq!(
        insert(&["--type=3", "--foreign-id=c", "--json", "--metadata-file", text(&bytes)]),
        "{\"inserted\":1}\n"
    );
    let events = database.events();
    let first = json!({
        "id": "1", "type": -1, "foreign_id": "a", "timestamp": "2026-01-31T11:00:00Z", "metadata": { "x": 1 },
    });
    assert_eq!(events[0], first);
    assert_eq!(events[1]["metadata"], "text\u{1b}");
    assert_eq!((events[2].get("metadata"), &events[2]["metadata_base64"]), (None, &json!("/wA=")));
    let lines = succeed(&mut database.reflex(&["tail", "--to-head", "--after", "1"]));
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.contains("type 2  b\\n  text\\u{1b}\n"), "{lines}");
}

#[test]
fn it_follows_until_it_is_interrupted() {
    let database = TestDatabase::new();
    database.insert("before");
    let mut all = Running::start(&mut database.reflex(&["tail", "--json"]));
    assert!(all.line().contains("before"));
    database.insert("after");
    assert!(all.line().contains("after"));
    all.signal(Signal::INT);
    assert_eq!(all.exit_code(), Some(130));
    let mut rest = Running::start(&mut database.reflex(&["tail", "--json", "--after=1"]));
    assert!(rest.line().contains("after"));
    rest.signal(Signal::TERM);
    assert_eq!(rest.exit_code(), Some(143));
}

#[test]
fn from_the_head_only_what_comes_later() {
    let database = TestDatabase::new();
    database.insert("before");
    assert_eq!(succeed(&mut database.reflex(&["tail", "--from-head", "--to-head"])), "");
    let mut tail = Running::start(&mut database.reflex(&["tail", "--from-head", "--json"]));
    // When it has opened is not to be seen from outside: what it prints must be the rest of what is inserted.
    let mut inserted = 0;
    let line = std::thread::scope(|scope| {
        let line = scope.spawn(|| tail.line());
        while !line.is_finished() {
            inserted += 1;
            database.insert(&inserted.to_string());
        }
        line.join().unwrap()
    });
    let first = objects(&line)[0]["foreign_id"].as_str().unwrap().parse::<u32>().unwrap();
    for next in first + 1..=inserted {
        assert_eq!(objects(&tail.line())[0]["foreign_id"], next.to_string());
    }
}

#[test]
fn nobody_reads_to_the_end() {
    let database = TestDatabase::new();
    let lines: String = (0..20_000).map(|id| format!("{{\"type\":1,\"foreign_id\":\"{id}\"}}\n")).collect();
    let file = database.file("many.ndjson", lines);
    succeed(&mut database.reflex(&["import", text(&file)]));
    let mut tail = database.reflex(&["tail", "--to-head"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let head = Command::new("head").arg("-n2").stdin(tail.stdout.take().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(head.stdout).unwrap().lines().count(), 2);
    let output = tail.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn migrating_twice_changes_nothing() {
    let database = TestDatabase::new();
    database.insert("a");
    assert_eq!(succeed(&mut database.reflex(&["migrate"])), "everything is up to date\n");
    assert_eq!(succeed(&mut database.reflex(&["migrate", "--json"])), "");
    let status = objects(&succeed(&mut database.reflex(&["migrate", "--status", "--json"])));
    assert_eq!((&status[0]["version"], &status[0]["state"]), (&json!(1), &json!("applied")));
    assert_eq!(database.events().len(), 1);
}

#[test]
fn tables_of_other_names_are_made_by_the_schema() {
    let database = TestDatabase::new();
    let names = ["--events=orders", "--cursors=places", "--errors=failures"];
    let schema = succeed(reflex(&["schema", "--dialect=sqlite"]).args(names));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = sqlx::SqlitePool::connect(&database.url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&pool).await.unwrap();
        pool.close().await;
    });
    succeed(&mut database.reflex(&["insert", "--table=orders", "--type=1", "--foreign-id=a"]));
    succeed(&mut database.reflex(&["cursors", "set", "c", "0", "--table=places"]));
    let arguments = ["lag", "--json", "--table=orders", "--cursors-table=places"];
    assert_eq!(objects(&succeed(&mut database.reflex(&arguments)))[0]["events_behind"], 1);
    assert!(database.events().is_empty());
    for dialect in ["postgres", "mysql", "mariadb"] {
        assert!(succeed(&mut reflex(&["schema", "--dialect", dialect])).contains("create table"));
    }
}
