//! The README names a test for everything that luno/reflex has.

use std::{fs, path::Path};

/// The tests that a row of a table names, each with the path of its file: `` `a`, `b` in [file.rs](path) ``.
fn named_tests(row: &str) -> Vec<(String, String)> {
    let mut named = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let cell = row.rsplit(" | ").next().unwrap_or_default();
    for (at, part) in cell.split('`').enumerate() {
        match part.split_once("](") {
            _ if at % 2 == 1 => names.push(part),
            Some((_, path)) => {
                let path = path.split(')').next().unwrap_or_default();
                named.extend(names.drain(..).map(|name| (name.to_owned(), path.to_owned())));
            }
            None => {}
        }
    }
    named
}

/// Whether the file has the name as a word: some tests are made by a macro from their name.
fn is_in(name: &str, file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split(|char: char| !char.is_alphanumeric() && char != '_').any(|word| word == name)
}

#[test]
fn every_test_that_is_named_exists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| ") && line.contains(".rs)"));
    let named: Vec<_> = rows.flat_map(named_tests).collect();
    assert!(named.len() > 60, "{} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|(name, path)| !is_in(name, &folder.join(path))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
