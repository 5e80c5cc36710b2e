//! What is to do, decided from what the database says it has; no I/O.

use chrono::{DateTime, Utc};

use crate::{Error, Migration, State, Status};

/// A row of the bookkeeping table.
#[derive(Debug)]
pub struct Record {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) checksum: String,
    /// None while a migration is going on, which only outlives the run where tables are not
    /// created in transactions.
    pub(crate) applied_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Everything applied.
    Latest,
    /// Nothing applied above this version.
    Back(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Apply(&'static Migration),
    /// Apply one that was begun, and so may meet parts of itself.
    Resume(&'static Migration),
    Revert(&'static Migration),
}

impl Step {
    pub(crate) fn migration(self) -> &'static Migration {
        match self {
            Self::Apply(migration) | Self::Resume(migration) | Self::Revert(migration) => migration,
        }
    }
}

/// The steps from the records to the goal, in the order in which to take them.
pub(crate) fn plan(goal: Goal, known: &'static [Migration], records: &[Record]) -> Result<Vec<Step>, Error> {
    verify(known, records)?;
    Ok(match goal {
        Goal::Latest => known.iter().filter_map(|m| forward(m, records)).collect(),
        Goal::Back(to) => {
            let above = known.iter().rev().filter(|m| m.version > to);
            let recorded = above.filter(|m| find(m, records).is_some());
            recorded.map(Step::Revert).collect()
        }
    })
}

/// The known migrations and then the unknown ones, each with its state.
pub(crate) fn statuses(known: &[Migration], records: &[Record]) -> Vec<Status> {
    let known_ones =
        known.iter().map(|m| Status { version: m.version, name: m.name.to_owned(), state: state(m, find(m, records)) });
    let unknown_ones = unknown(known, records).map(|record| Status {
        version: record.version,
        name: record.name.clone(),
        state: State::Unknown,
    });
    known_ones.chain(unknown_ones).collect()
}

fn verify(known: &[Migration], records: &[Record]) -> Result<(), Error> {
    if let Some(record) = unknown(known, records).next() {
        let latest = known.last().map_or(0, |m| m.version);
        return Err(Error::newer(record.version, &record.name, latest));
    }
    for migration in known {
        if let Some(record) = find(migration, records)
            && record.checksum != migration.checksum()
        {
            return Err(Error::changed(migration, &record.checksum));
        }
    }
    Ok(())
}

fn forward(migration: &'static Migration, records: &[Record]) -> Option<Step> {
    match find(migration, records) {
        None => Some(Step::Apply(migration)),
        Some(record) if record.applied_at.is_none() => Some(Step::Resume(migration)),
        Some(_) => None,
    }
}

fn state(migration: &Migration, record: Option<&Record>) -> State {
    match record {
        None => State::Pending,
        Some(record) if record.checksum != migration.checksum() => State::Changed,
        Some(record) => record.applied_at.map_or(State::Unfinished, State::Applied),
    }
}

fn find<'a>(migration: &Migration, records: &'a [Record]) -> Option<&'a Record> {
    records.iter().find(|r| r.version == migration.version)
}

fn unknown<'a>(known: &'a [Migration], records: &'a [Record]) -> impl Iterator<Item = &'a Record> {
    let is_known = |r: &Record| known.iter().any(|m| m.version == r.version);
    records.iter().filter(move |r| !is_known(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    static KNOWN: [Migration; 3] = [fake(1), fake(2), fake(3)];

    const fn fake(version: i64) -> Migration {
        Migration { version, name: "fake", tables: &[], up: "create", down: "drop" }
    }

    fn record(version: i64, finished: bool) -> Record {
        Record { version, name: "fake".to_owned(), checksum: KNOWN[0].checksum(), applied_at: finished.then(Utc::now) }
    }

    #[track_caller]
    fn check(goal: Goal, records: &[Record], expected: &str) {
        let words = plan(goal, &KNOWN, records).map(|steps| {
            let words = steps.iter().map(|step| match step {
                Step::Apply(m) => format!("apply {}", m.version),
                Step::Resume(m) => format!("resume {}", m.version),
                Step::Revert(m) => format!("revert {}", m.version),
            });
            words.collect::<Vec<_>>().join(", ")
        });
        let found = words.unwrap_or_else(|error| error.to_string());
        assert!(found.starts_with(expected), "{found}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{found}");
    }

    #[test]
    fn forward_applies_what_is_missing_in_order() {
        check(Goal::Latest, &[], "apply 1, apply 2, apply 3");
        check(Goal::Latest, &[record(1, true)], "apply 2, apply 3");
        let interrupted = [record(1, true), record(2, false)];
        check(Goal::Latest, &interrupted, "resume 2, apply 3");
        check(Goal::Latest, &[1, 2, 3].map(|v| record(v, true)), "");
    }

    #[test]
    fn back_reverts_what_is_recorded_newest_first() {
        let two = [record(1, true), record(2, false)];
        check(Goal::Back(0), &two, "revert 2, revert 1");
        check(Goal::Back(1), &two, "revert 2");
        check(Goal::Back(2), &two, "");
        check(Goal::Back(0), &[], "");
    }

    #[test]
    fn an_unknown_or_changed_record_stops_both_ways() {
        let newer = [record(1, true), record(4, true)];
        let changed = [Record { checksum: "other".to_owned(), ..record(2, true) }];
        for goal in [Goal::Latest, Goal::Back(0)] {
            check(goal, &newer, "check reflex migration 4 (fake): the database has it");
            check(goal, &changed, "check reflex migration 2 (fake): it was applied with");
        }
    }

    #[test]
    fn a_status_says_which_of_the_states_it_is() {
        let mut records = [1, 2, 4].map(|v| record(v, v != 2));
        let states = |records: &[Record]| -> Vec<String> {
            let all = statuses(&KNOWN, records);
            all.iter().map(|s| s.state.to_string()).collect()
        };
        let found = states(&records);
        assert!(found[0].starts_with("applied 20"), "{found:?}");
        let others = ["unfinished", "pending", "applied by a newer program"];
        assert_eq!(found[1..], others);
        records[0].checksum.clear();
        assert_eq!(states(&records)[0], "applied with other SQL");
    }
}
