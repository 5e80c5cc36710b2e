//! The chaos tests and the drills with faults, at length.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::runner::Runner;
use crate::servers::Servers;

/// How long each chaos test goes on, in seconds.
const SECONDS: &str = "REFLEX_CHAOS_SECONDS";
/// The file to which each of them adds what came of it.
const REPORT: &str = "REFLEX_CHAOS_REPORT";
const FILTERS: [&str; 2] = ["chaos::", "faults::"];
const TEST: [&str; 4] = ["test", "--quiet", "--package=reflex-e2e", "--test=it"];
/// A test takes this much longer than it is told to: servers start, consumers catch up, everything is checked.
const OVERHEAD: Duration = Duration::from_secs(6);
const MIN: Duration = Duration::from_secs(2);

/// Reads how long all tests are to take.
pub(crate) fn minutes(text: &str) -> Result<u32> {
    match text.parse().context("it is not a whole number of minutes")? {
        0 => bail!("every test takes some time; from 5 minutes on they all fit in"),
        minutes => Ok(minutes),
    }
}

/// Runs the chaos tests one after the other, about so many minutes in all, and prints what came of each and of all.
///
/// A signal ends the test that runs, and the others are left out.
pub(crate) fn run(runner: &Runner, minutes: u32, json: bool) -> Result<()> {
    let servers = Servers::start_missing(runner)?;
    let tests = tests(runner)?;
    let folder = tempfile::tempdir().context("make a folder for the report")?;
    let report = folder.path().join("report");
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    let end = Instant::now() + Duration::from_secs(u64::from(minutes) * 60);
    for (done, test) in tests.iter().enumerate() {
        let share = end.saturating_duration_since(Instant::now()) / u32::try_from(tests.len() - done)?;
        let ran = run_one(runner, &servers, test, share.saturating_sub(OVERHEAD).max(MIN), &report);
        if runner.check().is_err() {
            break;
        }
        if let Err(error) = ran {
            eprintln!("{test}: {error:#}");
            failed.push(test.as_str());
        }
        let told = read(&report)?.split_off(outcomes.len());
        told.iter().for_each(|outcome| println!("{}", if json { outcome.json() } else { outcome.to_string() }));
        outcomes.extend(told);
    }
    if !json {
        println!("\n{}", table(outcomes));
    }
    runner.check()?;
    if !failed.is_empty() {
        bail!("{} of {} chaos tests failed: {}", failed.len(), tests.len(), failed.join(", "));
    }
    Ok(())
}

/// The names of the tests.
fn tests(runner: &Runner) -> Result<Vec<String>> {
    let mut cargo = runner.cargo();
    cargo.args(TEST).args(["--", "--list", "--include-ignored"]).args(FILTERS);
    let listed = String::from_utf8(runner.output(&mut cargo)?).context("names of tests are text")?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn run_one(runner: &Runner, servers: &Servers, test: &str, duration: Duration, report: &Path) -> Result<()> {
    eprintln!("{test}, {} s", duration.as_secs());
    let mut cargo = runner.cargo();
    cargo.args(TEST).args(["--", "--include-ignored", "--exact", test]).stdout(Stdio::from(io::stderr()));
    cargo.envs(servers.environment()).env(SECONDS, duration.as_secs().to_string()).env(REPORT, report);
    runner.run(&mut cargo)
}

/// What the tests have told so far.
fn read(report: &Path) -> Result<Vec<Outcome>> {
    let lines = match fs::read_to_string(report) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        lines => lines.with_context(|| format!("read {}", report.display()))?,
    };
    let outcome = |line| serde_json::from_str(line).with_context(|| format!("read the outcome {line}"));
    lines.lines().map(outcome).collect()
}

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Outcome {
    fault: String,
    database: String,
    faults: u64,
    events: u64,
    runs: u64,
    failures: u64,
    repeats: u64,
    lost: u64,
    phantoms: u64,
    disorder: u64,
    seconds: u64,
}

impl Outcome {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("it has only text and numbers")
    }

    fn row(&self) -> String {
        let numbers =
            [self.faults, self.events, self.runs, self.failures, self.repeats, self.lost, self.phantoms, self.disorder];
        let numbers = numbers.map(|number| number.to_string()).join(" | ");
        format!("| {} | {} | {numbers} | {} |\n", self.fault, self.database, self.seconds)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, database, faults, events, runs, failures, repeats, lost, phantoms, disorder, seconds } = self;
        write!(f, "{database}, {fault}: {faults} faults, {events} events, {runs} runs, {failures} of them failed, ")?;
        write!(f, "{repeats} repeats, {lost} lost, {phantoms} phantoms, {disorder} out of order, {seconds} s")
    }
}

/// All outcomes as one Markdown table.
fn table(mut outcomes: Vec<Outcome>) -> String {
    let place = |database: &str| ["Postgres", "MariaDB", "SQLite"].iter().position(|name| *name == database);
    outcomes.sort_by_key(|outcome| (outcome.fault.clone(), place(&outcome.database)));
    let rows: String = outcomes.iter().map(Outcome::row).collect();
    format!(
        "| fault | database | faults | events | runs | failed runs | repeats | lost | phantoms | out of order | seconds |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fault: &str, database: &str) -> Outcome {
        let line = format!(
            r#"{{"fault":"{fault}","database":"{database}","faults":2,"events":300,"runs":7,"failures":4,"repeats":5,
                 "lost":0,"phantoms":0,"disorder":0,"seconds":9}}"#
        );
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_table_has_a_row_for_each_fault_and_database() {
        let outcomes = [("server killed", "MariaDB"), ("disk full", "SQLite"), ("server killed", "Postgres")];
        let table = table(outcomes.map(|(fault, database)| outcome(fault, database)).to_vec());
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], "| disk full | SQLite | 2 | 300 | 7 | 4 | 5 | 0 | 0 | 0 | 9 |");
        assert!(rows[1].starts_with("| server killed | Postgres |") && rows[2].contains("| MariaDB |"));
    }

    #[test]
    fn some_minutes_are_needed() {
        assert_eq!(minutes("1").unwrap(), 1);
        assert!(minutes("0").unwrap_err().to_string().contains("from 5 minutes on"));
        assert!(minutes("0.5").is_err() && minutes("-1").is_err());
    }

    #[test]
    fn one_line_says_it_all() {
        let line = outcome("disk full", "SQLite").to_string();
        let expected = "SQLite, disk full: 2 faults, 300 events, 7 runs, 4 of them failed, 5 repeats, 0 lost, \
                        0 phantoms, 0 out of order, 9 s";
        assert_eq!(line, expected);
    }
}
