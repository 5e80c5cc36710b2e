//! `reflex demo --file`.

use std::{fs::OpenOptions, io::Write, path::Path};

use serde_json::Value;

use crate::reflex::{TestDatabase, fail, objects, reflex, succeed, text};

fn demo(file: &Path) -> std::process::Command {
    reflex(&["demo", "--json", "--file", text(file)])
}

fn report(file: &Path) -> Value {
    objects(&succeed(&mut demo(file))).remove(0)
}

fn append(file: &Path, text: &str) {
    OpenOptions::new().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn lines_become_events_and_appended_lines_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.ndjson");
    std::fs::write(&file, "{\"author\":\"Ann\",\"added\":2}\n\n{\"type\":2,\"foreign_id\":\"bob\"}\n").unwrap();
    let first = report(&file);
    assert_eq!((&first["imported"], &first["merges"]), (&2.into(), &1.into()));
    assert_eq!((&first["authors"][0]["author"], &first["authors"][0]["added"]), (&"Ann".into(), &2.into()));
    assert_eq!(first["authors"][1]["author"], "bob");
    assert_eq!(report(&file)["imported"], 0);
    append(&file, "{\"author\":\"Ann\"}");
    assert_eq!(report(&file)["imported"], 1);
    append(&file, "\n{\"author\":\"Ann\"}\n");
    let last = report(&file);
    assert_eq!((&last["imported"], &last["authors"][0]["commits"]), (&1.into(), &3.into()));
    std::fs::write(&file, "{\"author\":\"Eve\"}\n{\"author\":\"Ann\"}\n").unwrap();
    let message = fail(&mut demo(&file), 1);
    assert!(message.contains("is not what was imported before") && message.contains("any.ndjson"), "{message}");
}

#[test]
fn a_bad_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.ndjson");
    std::fs::write(&file, "{}\n{\"a\":}\n").unwrap();
    let message = fail(&mut demo(&file), 1);
    assert!(message.contains("bad.ndjson: line 2, column 6: "), "{message}");
    std::fs::write(&file, "{}\n{\"a\":1}\n").unwrap();
    assert_eq!(report(&file)["imported"], 2);
}

#[test]
fn what_tail_prints_is_taken_as_it_is() {
    let database = TestDatabase::new();
    database.insert("order-1");
    let file = database.file("events.ndjson", succeed(&mut database.reflex(&["tail", "--json", "--to-head"])));
    let report = report(&file);
    assert_eq!(report["authors"][0]["author"], "order-1");
    assert_eq!(report["data"], format!("{}.reflex.sqlite", file.display()));
}

#[test]
fn what_is_no_file_is_told() {
    let message = fail(&mut demo(Path::new("/no/such.ndjson")), 1);
    assert!(message.contains("read /no/such.ndjson"), "{message}");
    let message = fail(&mut demo(Path::new("/tmp")), 1);
    assert!(message.contains("--file needs an ordinary file"), "{message}");
    let message = fail(&mut reflex(&["demo", "--file", "a", "--repo", "b"]), 2);
    assert!(message.contains("cannot be used with"), "{message}");
}
