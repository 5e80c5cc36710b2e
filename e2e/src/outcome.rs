use std::{env, fs::File, io::Write};

use anyhow::{Context, Result};
use reflex_testing::{Report, Violation, Violations};
use serde::Serialize;

/// A file that gets every outcome, as one line of JSON.
const REPORT: &str = "REFLEX_CHAOS_REPORT";

/// What was done to a database, and what came of it: a row of the table that `cargo xtask chaos` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What was done.
    pub fault: String,
    /// To which database.
    pub database: String,
    /// How often.
    pub faults: u64,
    /// Events that were committed meanwhile.
    pub events: u64,
    /// Runs of consumers.
    pub runs: usize,
    /// Those of them that ended with an error.
    pub failures: u64,
    /// Events that were handed over again, to consumers that began again.
    pub repeats: usize,
    /// Events that a consumer never got, or that one of its runs passed over.
    pub lost: usize,
    /// Events that a consumer got and that were not committed.
    pub phantoms: usize,
    /// Events that came twice within a run, or after a later one.
    pub disorder: usize,
    /// How long all of it took.
    pub seconds: u64,
}

impl Outcome {
    /// Adds what the check of one consumer says.
    pub fn count(&mut self, checked: &Result<Report, Violations>) {
        match checked {
            Ok(report) => {
                self.runs += report.sessions;
                self.repeats += report.repeats;
            }
            Err(violations) => {
                let count = |kinds: &[Violation]| kinds.iter().map(|kind| violations.count(*kind)).sum::<usize>();
                self.lost += count(&[Violation::Lost, Violation::Skipped]);
                self.phantoms += count(&[Violation::Phantom]);
                self.disorder += count(&[Violation::Duplicate, Violation::Disorder, Violation::Repeated]);
            }
        }
    }

    /// Shows it, and adds it to the report, if there is one.
    ///
    /// # Errors
    ///
    /// If the report cannot be written.
    #[expect(clippy::print_stderr, reason = "a test that is watched shows it")]
    pub fn tell(&self) -> Result<()> {
        let line = serde_json::to_string(self)?;
        eprintln!("{line}");
        let Some(path) = env::var_os(REPORT) else { return Ok(()) };
        let file = File::options().create(true).append(true).open(&path);
        let mut file = file.with_context(|| format!("open {}", path.display()))?;
        file.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("write to {}", path.display()))
    }
}
