//! `reflex import`.

use std::{io::Write, process::Stdio};

use rustix::process::Signal;

use crate::reflex::{Running, TestDatabase, fail, objects, stderr, succeed, text, until, with_input};

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| format!("{{\"type\":1,\"foreign_id\":\"{id}\",\"metadata\":{{\"n\":{id}}}}}\n")).collect()
}

/// The foreign ids are these, in this order.
#[track_caller]
fn check_ids(database: &TestDatabase, expected: std::ops::Range<u32>) {
    let ids: Vec<_> = database.events().iter().map(|event| event["foreign_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, expected.map(|id| id.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_tail_prints_is_imported_as_it_was() {
    let database = TestDatabase::new();
    let strange = concat!(
        "{\"type\":-3,\"foreign_id\":\"\",\"timestamp\":\"1999-12-31T23:59:59.123456Z\",\"metadata\":\"plain\"}\n",
        "{\"type\":1,\"foreign_id\":\"a\",\"metadata_base64\":\"InF1b3RlZCI=\",\"trace_base64\":\"AQID\"}\n",
        "{\"type\":1,\"foreign_id\":\"a\",\"metadata_base64\":\"/wA=\"}\n",
        "{\"type\":1,\"foreign_id\":\"a\"}\n",
    );
    let file = database.file("strange.ndjson", strange);
    succeed(&mut database.reflex(&["import", text(&file)]));
    let printed = succeed(&mut database.reflex(&["tail", "--json", "--to-head"]));
    let copy = TestDatabase::new();
    let output = with_input(&mut copy.reflex(&["import", "-", "--json"]), printed.as_bytes());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"imported\":4,\"lines\":4}\n");
    assert_eq!(succeed(&mut copy.reflex(&["tail", "--json", "--to-head"])), printed);
}

#[test]
fn a_bad_line_stops_it_in_front_of_its_batch() {
    let database = TestDatabase::new();
    let bad = format!("{}{{\"type\":1,\"foreign\":\"x\"}}\n{}", lines(0..25), lines(26..30));
    let file = database.file("bad.ndjson", bad);
    let import = |arguments: &[&str]| {
        let mut import = database.reflex(&["import", "--batch-size=10", text(&file)]);
        import.args(arguments);
        import
    };
    let message = fail(&mut import(&[]), 1);
    assert!(message.contains("bad.ndjson: 20 events were imported before, up to line 20"), "{message}");
    assert!(message.contains("go on with --skip-lines 20") && message.contains("line 26, column 19: "), "{message}");
    assert!(message.contains("unknown field `foreign`"), "{message}");
    check_ids(&database, 0..20);

    std::fs::write(&file, lines(0..30)).unwrap();
    assert_eq!(succeed(&mut import(&["--skip-lines=20"])), "imported 10 events into `events`\n");
    check_ids(&database, 0..30);
    let message = fail(&mut import(&["--skip-lines=31"]), 1);
    assert!(message.contains("nothing was imported: skip 31 lines: there are only 30"), "{message}");
    assert!(!message.contains("go on"), "{message}");
}

#[test]
fn a_file_that_is_none() {
    let database = TestDatabase::new();
    let message = fail(&mut database.reflex(&["import", "/no/such.ndjson"]), 1);
    assert!(message.contains("read /no/such.ndjson: No such file"), "{message}");
    let message = fail(&mut database.reflex(&["import", "/tmp"]), 1);
    assert!(message.contains("read /tmp"), "{message}");
    let output = with_input(&mut database.reflex(&["import", "-"]), b"[1]\n");
    let message = stderr(&output);
    assert!(message.contains("import standard input: nothing was imported: line 1, column 1: "), "{message}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn lines_that_trickle_in_are_inserted_as_they_come() {
    let database = TestDatabase::new();
    let mut import = Running::start(database.reflex(&["import", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdin = import.child.stdin.take().unwrap();
    stdin.write_all(lines(0..3).as_bytes()).unwrap();
    until("the lines are imported", || (database.events().len() == 3).then_some(()));
    import.signal(Signal::INT);
    assert_eq!(import.exit_code(), Some(130));
    let mut message = String::new();
    std::io::Read::read_to_string(&mut import.child.stderr.take().unwrap(), &mut message).unwrap();
    assert!(message.contains("3 events were imported before, up to line 3; go on with --skip-lines 3"), "{message}");
    drop(stdin);
}

#[test]
fn an_interrupted_import_goes_on_where_it_says() {
    let database = TestDatabase::new();
    let file = database.file("many.ndjson", lines(0..30_000));
    let arguments = ["import", "--json", "--batch-size=50", text(&file)];
    let mut import = Running::start(database.reflex(&arguments).stderr(Stdio::piped()));
    until("something is imported", || (!database.events().is_empty()).then_some(()));
    import.signal_if_running(Signal::INT);
    let code = import.exit_code();
    let mut message = String::new();
    std::io::Read::read_to_string(&mut import.child.stderr.take().unwrap(), &mut message).unwrap();
    assert_eq!(code, Some(130), "{message}");
    let skip = message.split("--skip-lines ").nth(1).unwrap().split(':').next().unwrap().trim().to_owned();
    let rest = succeed(database.reflex(&arguments).args(["--skip-lines", &skip]));
    assert_eq!(objects(&rest)[0]["imported"].as_u64().unwrap() + skip.parse::<u64>().unwrap(), 30_000);
    check_ids(&database, 0..30_000);
}

#[test]
fn a_database_that_cannot_be_written_is_told_with_the_lines() {
    let database = TestDatabase::new();
    let file = database.file("few.ndjson", lines(0..3));
    let url = format!("{}?mode=ro", database.url);
    let import = crate::reflex::reflex(&["import", text(&file), "--database-url", &url]).output().unwrap();
    let message = stderr(&import);
    assert!(message.contains("nothing was imported: insert lines 1 to 3") && message.contains("readonly"), "{message}");
    assert_eq!(import.status.code(), Some(1));
}
