//! Every row can be measured; how fast anything is plays no part.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::{
    collections::BTreeSet,
    env,
    process::{Command, Output},
};

use reflex_bench::{Bench, Options, Report, Row, Scale, chosen, measure};

const PROGRAM: &str = env!("CARGO_BIN_EXE_reflex-bench");

/// All rows that it measures are among those that the filters choose.
fn run(postgres: Option<String>, mariadb: Option<String>, filters: &[&str]) -> Report {
    let filters: Vec<_> = filters.iter().map(|&filter| filter.to_owned()).collect();
    let chosen = chosen(&filters).unwrap();
    let bench = Bench::new(Options { postgres, mariadb, filters, scale: Scale::TINY, program: PROGRAM.into() });
    let bench = bench.unwrap();
    measure(&bench).unwrap();
    let report = bench.finish().unwrap();
    let unknown: Vec<_> = report.rows().iter().map(Row::id).filter(|id| !chosen.iter().any(|row| row == id)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
    report
}

fn call(args: &[&str]) -> Output {
    let mut program = Command::new(PROGRAM);
    program.env_remove("REFLEX_BENCH_POSTGRES_URL").env_remove("REFLEX_BENCH_MARIADB_URL");
    program.args(args).output().unwrap()
}

fn ids(report: &Report) -> BTreeSet<&str> {
    report.rows().iter().map(Row::id).collect()
}

#[test]
fn rows_without_a_server() {
    let report = run(None, None, &[]);
    let expected = [
        "batches/memory",
        "cursor-per-event/sqlite",
        "engine/memory-events",
        "engine/run",
        "insert/sqlite/bulk",
        "lanes/memory",
        "read/sqlite/1000",
        "read/sqlite/10000",
        "transactional/batches-upsert/sqlite",
        "transactional/batches/sqlite",
        "transactional/events/sqlite",
    ];
    assert_eq!(ids(&report), BTreeSet::from(expected));
    let table = report.to_string();
    assert!(table.contains("SQLite 3") && table.contains("| `engine/run` "), "{table}");
}

#[test]
fn a_filter_chooses_rows() {
    assert_eq!(ids(&run(None, None, &["engine/run", "lanes"])), BTreeSet::from(["engine/run", "lanes/memory"]));
}

#[test]
fn the_rows_of_a_filter_are_listed() {
    let output = call(&["--list", "--filter=gaps/", "--filter=idle/mariadb/cpu"]);
    let expected = "idle/mariadb/cpu\ngaps/postgres/p50\ngaps/postgres/p99\ngaps/mariadb/p50\ngaps/mariadb/p99\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn a_filter_that_chooses_nothing_is_an_error() {
    let output = call(&["--filter=engine/run", "--filter=no/such/row"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(said.contains("`no/such/row`") && said.contains("\n  memory/postgres"), "{said}");
}

#[test]
fn a_file_that_cannot_be_written_is_noticed_before_anything_is_measured() {
    let output = call(&["--json=/no/such/folder/figures.json", "--quick", "--filter=engine/run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(said.contains("write /no/such/folder/figures.json") && !said.contains("| `engine/run`"), "{said}");
}

#[test]
fn what_other_libraries_do_stands_beside_our_row() {
    let mut report = run(None, None, &["engine/run"]);
    let peer =
        r#"[{"what": "other 1.0", "unit": "per_second", "samples": [1000, 3000, 2000], "beside": "engine/run"}]"#;
    report.merge(peer).unwrap();
    let table = report.to_string();
    assert!(table.contains("| other 1.0 | 2,000/s | `engine/run`: "), "{table}");
    assert!(report.merge("{}").is_err());
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn rows_on_postgres() {
    let report = run(Some(env::var("REFLEX_TEST_POSTGRES_URL").unwrap()), None, &["postgres"]);
    let ids = ids(&report);
    for id in ["back-fill/postgres", "fan-out/postgres/100", "latency/processes/postgres/p99", "memory/postgres"] {
        assert!(ids.contains(id), "{id} is not among {ids:?}");
    }
}

#[test]
#[ignore = "needs Postgres: cargo xtask test"]
fn a_filter_chooses_single_lines_of_a_measurement() {
    let postgres = Some(env::var("REFLEX_TEST_POSTGRES_URL").unwrap());
    let report = run(postgres, None, &["in-process/postgres/p99", "idle/postgres/cpu"]);
    assert_eq!(ids(&report), BTreeSet::from(["idle/postgres/cpu", "latency/in-process/postgres/p99"]));
}

#[test]
#[ignore = "needs MariaDB: cargo xtask test"]
fn rows_on_mariadb() {
    let report = run(None, Some(env::var("REFLEX_TEST_MARIADB_URL").unwrap()), &["mariadb"]);
    let ids = ids(&report);
    for id in ["fan-out/mariadb/10", "idle/mariadb", "gaps/mariadb/p99", "latency/in-process/mariadb/p50"] {
        assert!(ids.contains(id), "{id} is not among {ids:?}");
    }
}
