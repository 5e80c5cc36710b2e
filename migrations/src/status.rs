use std::fmt;

use chrono::{DateTime, Utc};

/// Where one migration stands in one database; see [`status`](crate::status()).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) state: State,
}

impl Status {
    /// The migration's place in the order, from 1.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The migration's name; of one that this program does not know, the name in the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is applied.
    pub fn state(&self) -> State {
        self.state
    }
}

/// Whether a migration is applied; prints as one lowercase phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Not applied: [`up`](crate::up) will.
    Pending,
    /// Begun, on MySQL or MariaDB, and either going on at this moment or interrupted:
    /// [`up`](crate::up) completes it.
    Unfinished,
    /// Applied at that time, by the database's clock.
    Applied(DateTime<Utc>),
    /// Applied with other SQL than this program carries: [`up`](crate::up) is an error.
    Changed,
    /// Applied by a newer program than this one: [`up`](crate::up) is an error.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Unfinished => f.write_str("unfinished"),
            Self::Applied(at) => write!(f, "applied {}", at.format("%Y-%m-%dT%H:%M:%SZ")),
            Self::Changed => f.write_str("applied with other SQL"),
            Self::Unknown => f.write_str("applied by a newer program"),
        }
    }
}
