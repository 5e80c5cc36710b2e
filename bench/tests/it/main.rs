//! Every row can be measured; how fast anything is plays no part.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::{collections::BTreeSet, env};

use reflex_bench::{Bench, Options, Report, Row, Scale, measure};

fn run(postgres: Option<String>, mariadb: Option<String>, filters: &[&str]) -> Report {
    let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
    let program = env!("CARGO_BIN_EXE_reflex-bench").into();
    let bench = Bench::new(Options { postgres, mariadb, filters, scale: Scale::TINY, program }).unwrap();
    measure(&bench).unwrap();
    bench.finish().unwrap()
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
#[ignore = "needs MariaDB: cargo xtask test"]
fn rows_on_mariadb() {
    let report = run(None, Some(env::var("REFLEX_TEST_MARIADB_URL").unwrap()), &["mariadb"]);
    let ids = ids(&report);
    for id in ["fan-out/mariadb/10", "idle/mariadb", "gaps/mariadb/p99", "latency/in-process/mariadb/p50"] {
        assert!(ids.contains(id), "{id} is not among {ids:?}");
    }
}
