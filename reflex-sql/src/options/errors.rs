use std::time::Duration;

use reflex_core::Metrics;

use super::EventsTableOptions;
use crate::{
    Result,
    names::{Identifier, TableName},
};

/// How the tables of an [`ErrorsTable`](crate::ErrorsTable) are named, and how many letters they hold.
///
/// A plain name converts into options with all defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reflex_sql::ErrorsTableOptions;
///
/// let options = ErrorsTableOptions::new("shop.order_errors").max_open(1_000).claim_lease(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ErrorsTableOptions {
    pub(crate) table: String,
    pub(crate) columns: ErrorsColumns,
    events: Events,
    letters: Option<String>,
    positions: Option<String>,
    attempts: Option<String>,
    pub(crate) max_open: usize,
    pub(crate) claim_lease: Duration,
    pub(crate) deadline: Duration,
    pub(crate) metrics: Option<Metrics>,
}

#[derive(Clone, Debug)]
pub(crate) struct ErrorsColumns {
    pub(crate) id: String,
    pub(crate) consumer: String,
    pub(crate) event_id: String,
    pub(crate) error: String,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) status: String,
}

/// Where the error events go.
#[derive(Clone, Debug)]
enum Events {
    Beside,
    Named(Box<EventsTableOptions>),
    Nowhere,
}

impl ErrorsTableOptions {
    /// A consumer may have so many open letters.
    pub const DEFAULT_MAX_OPEN: usize = 10_000;
    /// A letter that is being redriven belongs to its claimer for so long.
    pub const DEFAULT_CLAIM_LEASE: Duration = Duration::from_secs(5 * 60);

    /// Options for an errors table, optionally with its schema: `"consumer_errors"`, `"shop.consumer_errors"`. The other
    /// tables are beside it, under the same name with a suffix. Names are checked when the tables are opened.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            columns: ErrorsColumns::default(),
            events: Events::Beside,
            letters: None,
            positions: None,
            attempts: None,
            max_open: Self::DEFAULT_MAX_OPEN,
            claim_lease: Self::DEFAULT_CLAIM_LEASE,
            deadline: EventsTableOptions::DEFAULT_DEADLINE,
            metrics: None,
        }
    }

    /// The column of the error's id. Default: `id`.
    pub fn id_column(mut self, name: impl Into<String>) -> Self {
        self.columns.id = name.into();
        self
    }

    /// The column of the consumer's name. Default: `consumer`.
    pub fn consumer_column(mut self, name: impl Into<String>) -> Self {
        self.columns.consumer = name.into();
        self
    }

    /// The column of the event's id. Default: `event_id`.
    pub fn event_id_column(mut self, name: impl Into<String>) -> Self {
        self.columns.event_id = name.into();
        self
    }

    /// The column of the message. Default: `error_msg`.
    pub fn error_column(mut self, name: impl Into<String>) -> Self {
        self.columns.error = name.into();
        self
    }

    /// The column of the time when the event was put aside first. Default: `created_at`.
    pub fn created_at_column(mut self, name: impl Into<String>) -> Self {
        self.columns.created_at = name.into();
        self
    }

    /// The column of the time of the last change. Default: `updated_at`.
    pub fn updated_at_column(mut self, name: impl Into<String>) -> Self {
        self.columns.updated_at = name.into();
        self
    }

    /// The column of the status. Default: `error_status`.
    pub fn status_column(mut self, name: impl Into<String>) -> Self {
        self.columns.status = name.into();
        self
    }

    /// The events table of the error events, and how it is read; its metadata column must exist. Default: the name of the
    /// errors table with `_events` at its end.
    pub fn events_table(mut self, options: impl Into<EventsTableOptions>) -> Self {
        self.events = Events::Named(Box::new(options.into()));
        self
    }

    /// Records errors without error events; no events table is needed. Default: off.
    pub fn record_only(mut self) -> Self {
        self.events = Events::Nowhere;
        self
    }

    /// The table of the events that are put aside. Default: the name of the errors table with `_letters` at its end.
    pub fn letters_table(mut self, name: impl Into<String>) -> Self {
        self.letters = Some(name.into());
        self
    }

    /// The table that orders the letters of each consumer and lets one writer in at a time. Default: the name of the errors
    /// table with `_positions` at its end.
    pub fn positions_table(mut self, name: impl Into<String>) -> Self {
        self.positions = Some(name.into());
        self
    }

    /// The table of the counted attempts. Default: the name of the errors table with `_attempts` at its end.
    pub fn attempts_table(mut self, name: impl Into<String>) -> Self {
        self.attempts = Some(name.into());
        self
    }

    /// How many letters of one consumer may be open; one more is an error. All processes should agree. Default: 10,000.
    pub fn max_open(mut self, letters: usize) -> Self {
        self.max_open = letters;
        self
    }

    /// After so long, by the clock of the database, a claimed letter that was not settled may be claimed again. It should be
    /// longer than the consumer ever takes for an event. Default: 5 minutes.
    pub fn claim_lease(mut self, lease: Duration) -> Self {
        self.claim_lease = lease;
        self
    }

    /// How long one operation may take. Default: 30 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Records metrics here. Default: [`Metrics::global`].
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    pub(crate) fn names(&self) -> Result<ErrorsNames> {
        let beside = |name: &Option<String>, suffix: &str| {
            TableName::parse(&name.clone().unwrap_or_else(|| format!("{}{suffix}", self.table)))
        };
        let columns = &self.columns;
        Ok(ErrorsNames {
            table: TableName::parse(&self.table)?,
            id: Identifier::parse(&columns.id)?,
            consumer: Identifier::parse(&columns.consumer)?,
            event_id: Identifier::parse(&columns.event_id)?,
            error: Identifier::parse(&columns.error)?,
            created_at: Identifier::parse(&columns.created_at)?,
            updated_at: Identifier::parse(&columns.updated_at)?,
            status: Identifier::parse(&columns.status)?,
            letters: beside(&self.letters, "_letters")?,
            positions: beside(&self.positions, "_positions")?,
            attempts: beside(&self.attempts, "_attempts")?,
        })
    }

    /// The events table for the error events, if there are any.
    pub(crate) fn events(&self) -> Option<EventsTableOptions> {
        let options = match &self.events {
            Events::Nowhere => return None,
            Events::Named(options) => (**options).clone(),
            Events::Beside => EventsTableOptions::new(format!("{}_events", self.table)).deadline(self.deadline),
        };
        let metadata = options.columns.metadata.clone().unwrap_or_else(|| "metadata".into());
        let options = options.metadata_column(metadata);
        Some(match &self.metrics {
            Some(metrics) if options.metrics.is_none() => options.metrics(metrics),
            _ => options,
        })
    }
}

impl Default for ErrorsColumns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            consumer: "consumer".into(),
            event_id: "event_id".into(),
            error: "error_msg".into(),
            created_at: "created_at".into(),
            updated_at: "updated_at".into(),
            status: "error_status".into(),
        }
    }
}

impl<S: Into<String>> From<S> for ErrorsTableOptions {
    fn from(table: S) -> Self {
        Self::new(table)
    }
}

/// The checked names of an errors table and of the tables beside it.
#[derive(Clone, Debug)]
pub struct ErrorsNames {
    pub(crate) table: TableName,
    pub(crate) id: Identifier,
    pub(crate) consumer: Identifier,
    pub(crate) event_id: Identifier,
    pub(crate) error: Identifier,
    pub(crate) created_at: Identifier,
    pub(crate) updated_at: Identifier,
    pub(crate) status: Identifier,
    pub(crate) letters: TableName,
    pub(crate) positions: TableName,
    pub(crate) attempts: TableName,
}
