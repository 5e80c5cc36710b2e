//! `reflex demo` on git repositories.

use std::{collections::BTreeMap, process::Stdio};

use rand::random;
use serde_json::{Value, json};

use crate::{
    history::{AUTHORS, random_history},
    reflex::{Running, fail, objects, succeed, text},
    repository::Repository,
};

/// A random history; its seed and its size can be set by `REFLEX_TEST_SEED` and `REFLEX_TEST_COMMITS`.
pub(crate) fn random_repository(commits: u32, options: &[&str]) -> Repository {
    let from_env = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = from_env("REFLEX_TEST_SEED").unwrap_or_else(random);
    let commits = from_env("REFLEX_TEST_COMMITS").map_or(commits, |commits| commits.try_into().unwrap());
    println!("REFLEX_TEST_SEED={seed}");
    Repository::import(&random_history(commits, seed), options)
}

/// The totals of a report are those that git tells.
#[track_caller]
pub(crate) fn check_authors(report: &Value, repository: &Repository) {
    let reported: BTreeMap<_, _> = report["authors"].as_array().unwrap().iter().map(author).collect();
    let shown = |name: &[u8]| AUTHORS.iter().find(|author| author.0 == name).map(|author| author.1.to_owned());
    let name = |name: Vec<u8>| shown(&name).unwrap_or_else(|| String::from_utf8(name).unwrap());
    let expected: BTreeMap<_, _> =
        repository.totals().into_iter().map(|(author, totals)| (name(author), totals)).collect();
    assert_eq!(reported, expected);
}

fn author(author: &Value) -> (String, [u64; 3]) {
    let name = author["author"].as_str().unwrap().to_owned();
    (name, ["commits", "added", "deleted"].map(|key| author[key].as_u64().unwrap()))
}

/// Everything in a report is right, for a first run or one that the consumers were not killed before.
#[track_caller]
fn check_report(report: &Value, repository: &Repository, imported: u64) {
    let commits = repository.count(&[]);
    assert_eq!((report["imported"].as_u64(), report["events"].as_u64()), (Some(imported), Some(commits)), "{report}");
    check_authors(report, repository);
    assert_eq!(report["days"]["commits"], commits);
    assert_eq!(report["merges"], repository.count(&["--merges"]));
    let names: Vec<_> = report["consumers"].as_array().unwrap().iter().map(|consumer| &consumer["name"]).collect();
    assert_eq!(names, ["author-totals", "commits-per-day", "merges"]);
    for consumer in report["consumers"].as_array().unwrap() {
        assert_eq!(consumer["cursor"], commits.to_string(), "{consumer}");
        assert_eq!(consumer["events"], imported, "{consumer}");
        assert_eq!((&consumer["errors"], &consumer["lag_seconds"]), (&json!(0), &json!(0.0)), "{consumer}");
    }
    assert!(report["events_per_second"].as_f64().unwrap() > 0.0 || imported == 0);
}

#[test]
fn a_random_history_has_the_totals_that_git_tells() {
    let repository = random_repository(400, &[]);
    check_report(&repository.report(), &repository, repository.count(&[]));
    check_report(&repository.report(), &repository, 0);
    repository.commit();
    check_report(&repository.report(), &repository, 1);
}

#[test]
fn a_bare_repository_and_one_of_another_directory() {
    let repository = random_repository(30, &["--bare"]);
    let report = repository.report();
    check_report(&report, &repository, repository.count(&[]));
    let data = std::fs::canonicalize(&repository.path).unwrap().join("reflex-demo.sqlite");
    assert_eq!(report["data"], text(&data));

    // Inside a hook git names its own repository.
    let mut demo = repository.demo(&["--json"]);
    let other = random_repository(5, &[]);
    let report = succeed(demo.env("GIT_DIR", other.path.join(".git")).current_dir(&other.path));
    assert_eq!(objects(&report)[0]["events"], repository.count(&[]));
}

#[test]
fn a_shallow_clone_that_is_deepened_later() {
    let origin = random_repository(60, &[]);
    let clone = origin.clone_with(&["--depth=3"]);
    let first = clone.count(&[]);
    check_report(&clone.report(), &clone, first);
    succeed(&mut clone.git(&["fetch", "--quiet", "--unshallow"]));
    let report = clone.report();
    let all = clone.count(&[]);
    assert_eq!((report["imported"].as_u64(), report["events"].as_u64()), (Some(all - first), Some(all)));
    assert_eq!(clone.report()["imported"], 0);
}

#[test]
fn what_was_rewritten_stays_and_what_replaced_it_is_new() {
    let repository = random_repository(10, &[]);
    let first = repository.count(&[]);
    repository.commit();
    repository.report();
    succeed(&mut repository.git(&["reset", "--quiet", "--soft", "HEAD~3"]));
    succeed(&mut repository.git(&["commit", "--quiet", "--allow-empty", "--message=other"]));
    succeed(&mut repository.git(&["reflog", "expire", "--expire=now", "--all"]));
    succeed(&mut repository.git(&["gc", "--quiet", "--prune=now"]));
    let report = repository.report();
    assert_eq!((&report["imported"], &report["events"]), (&json!(1), &json!(first + 2)));
}

#[test]
fn commits_that_come_back_are_not_new() {
    let repository = random_repository(10, &[]);
    repository.report();
    succeed(&mut repository.git(&["checkout", "--quiet", "--force", "-b", "other", "HEAD~2"]));
    assert_eq!(repository.report()["imported"], 0);
    repository.commit();
    assert_eq!(repository.report()["imported"], 1);
    succeed(&mut repository.git(&["checkout", "--quiet", "--force", "main"]));
    assert_eq!(repository.report()["imported"], 0);
}

#[test]
fn people_get_a_table_that_says_where_the_results_are() {
    let repository = random_repository(20, &[]);
    let stdout = succeed(&mut repository.demo(&[]));
    for part in ["imported ", "author-totals", "commits-per-day", "merges", "events/s", "reflex-demo.sqlite"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
}

#[test]
fn what_is_no_history_is_told() {
    let empty = Repository::empty(&[]);
    let message = empty.demo_fails();
    assert!(message.contains("has no commits yet"), "{message}");
    let none = tempfile::tempdir().unwrap();
    let message = fail(crate::reflex::reflex(&["demo"]).current_dir(&none), 1);
    assert!(message.contains("not a git repository") && message.contains("--repo DIR"), "{message}");
    let message = fail(crate::reflex::reflex(&["demo", "--repo", "/no/such/place"]).current_dir(&none), 1);
    assert!(message.contains("/no/such/place"), "{message}");
    let message = fail(empty.demo(&[]).env("PATH", "/nowhere"), 1);
    assert!(message.contains("run git: is it installed?"), "{message}");
}

#[test]
fn a_broken_object_is_an_error_and_not_a_shorter_history() {
    let repository = random_repository(30, &[]);
    let packs = std::fs::read_dir(repository.path.join(".git/objects/pack")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()).filter(|path| text(path).ends_with(".pack")) {
        let moved = repository.folder().join("moved.pack");
        std::fs::rename(&pack, &moved).unwrap();
        succeed(repository.git(&["unpack-objects", "-q"]).stdin(std::fs::File::open(moved).unwrap()));
    }
    let root = succeed(&mut repository.git(&["rev-list", "--max-parents=0", "HEAD"]));
    let tree = succeed(&mut repository.git(&["rev-parse", &format!("{}^{{tree}}", root.trim())]));
    let (folder, file) = tree.trim().split_at(2);
    let object = repository.path.join(".git/objects").join(folder).join(file);
    let elsewhere = repository.folder().join("tree");
    std::fs::rename(&object, &elsewhere).unwrap();
    let message = repository.demo_fails();
    assert!(message.contains("read the git history of") && message.contains(tree.trim()), "{message}");
    std::fs::rename(&elsewhere, &object).unwrap();
    check_authors(&repository.report(), &repository);
}

#[test]
fn a_data_file_that_is_something_else_is_left_alone() {
    let repository = random_repository(5, &[]);
    let other = crate::reflex::TestDatabase::new();
    let file = other.folder.path().join("test.db");
    let message = fail(&mut repository.demo(&["--data", text(&file)]), 1);
    assert!(message.contains("not one of `reflex demo`") && message.contains("--data FILE"), "{message}");
    let noise = other.file("noise", [7; 5000]);
    let message = fail(&mut repository.demo(&["--data", text(&noise)]), 1);
    assert!(message.contains("not a database"), "{message}");
    let message = fail(&mut repository.demo(&["--data", "/no/such/folder/x.sqlite"]), 1);
    assert!(message.contains("/no/such/folder/x.sqlite") && message.contains("--data FILE"), "{message}");
}

#[test]
fn a_second_demo_on_the_same_file_is_refused() {
    let repository = random_repository(5, &[]);
    let mut serving = repository.demo(&["--serve", "127.0.0.1:0", "--json"]);
    let mut serving = Running::start(serving.stderr(Stdio::null()));
    serving.line();
    let message = repository.demo_fails();
    assert!(message.contains("another `reflex demo` is using") && message.contains("--data FILE"), "{message}");
}
